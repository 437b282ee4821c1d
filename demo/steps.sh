# Sourced by demo.sh after use_python: runs and prints the commands of a chain, one after another (step) or beside each
# other (job), with the logs of jobs in logs/$name/.

started_at=$(date +%s) some_failed="" report="" job_pids=() job_logs=() job_codes=()
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')

# Models this small don't gain from several threads: jobs with one thread each run beside each other, three of them also
# on two cores, where the last one would otherwise leave a core idle. A student of real size takes all cores, or the GPU.
most_jobs=$((cores < 2 ? 1 : 3))
at_once=$most_jobs

trap 'kill $(jobs -pr) 2>/dev/null && wait || true' EXIT # a step that fails also ends the jobs beside it
trap 'exit 130' INT TERM

step() { # step TITLE COMMAND...: print the title and the command, and run it, with --report if $report is set
    echo
    echo "== $1"
    shift
    printf '   %s\n' "$(printf '%q ' "$@")"
    local started=$SECONDS code=0
    "$@" ${report:+--report "$report"} || code=$?
    echo "   ($((SECONDS - started)) s)"
    return $code
}

videos_step() { # step that continues if some videos failed (exit code 1)
    local code=0 report
    report=$(mktemp)
    step "$@" || code=$?
    if [ $code -eq 1 ] && all_reports 'report["failed"]' "$report"; then
        echo "note: continues without the failed videos listed above"
        some_failed=yes code=0
    fi
    rm -f "$report"
    [ $code -eq 0 ] || exit $code
}

job() { # job TITLE LOG COMMAND...: print title and command, and start the command once fewer than $at_once jobs run
    echo
    echo "== $1"
    local log="logs/$name/$2.txt"
    shift 2
    [ ${#job_pids[@]} -gt 0 ] || jobs_started=$SECONDS
    printf '   %s\n' "$(printf '%q ' "$@")"
    wait_for_jobs $((at_once - 1))
    mkdir -p "$(dirname "$log")"
    TQDM_DISABLE=1 "$@" ${report:+--report "$log.json"} >>"$log" 2>&1 &
    job_pids+=("$!") job_logs+=("$log")
}

wait_for_jobs() { # wait_for_jobs NUMBER: wait until at most so many run; print the last line of each now and then
    local polls=0 i running code
    while true; do
        running=()
        for i in "${!job_pids[@]}"; do
            [ -z "${job_codes[$i]:-}" ] || continue
            if kill -0 "${job_pids[$i]}" 2>/dev/null; then
                running+=("$i")
            else
                code=0 # asked for at once, since bash forgets it if another child gets the same process id
                wait "${job_pids[$i]}" || code=$?
                job_codes[$i]=$code
            fi
        done
        [ ${#running[@]} -gt "$1" ] || return 0
        sleep 0.2
        polls=$((polls + 1))
        [ $((polls % 75)) -eq 0 ] || continue
        for i in "${running[@]}"; do echo "   ${job_logs[$i]}: $(tail -n 1 "${job_logs[$i]}")"; done
    done
}

finish_jobs() { # wait for all jobs; exit if one failed, unless only some videos did (exit code 1 with a report)
    local i code log
    [ ${#job_pids[@]} -gt 0 ] || return 0
    wait_for_jobs 0
    for i in "${!job_pids[@]}"; do
        code=${job_codes[$i]} log=${job_logs[$i]}
        if [ $code -eq 1 ] && [ -n "$report" ] && all_reports 'report["failed"]' "$log.json"; then
            echo "note: continues without failed videos, see $log"
            some_failed=yes code=0
        fi
        if [ $code -ne 0 ]; then
            tail -n 20 "$log" >&2
            echo "demo.sh: error: this job failed, see $log; the same command continues from here" >&2
            exit $code
        fi
        echo "   $log: $(tail -n 1 "$log")"
    done
    job_pids=() job_logs=() job_codes=() report=""
    echo "   ($((SECONDS - jobs_started)) s)"
}
