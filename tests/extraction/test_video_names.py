"""All stages find videos in folders below, and by names in another Unicode form; names that can't be used are lines."""

import json
import os
from pathlib import Path

import extract_embeddings
import extract_flows
import inference
from tests import stage_driver
from tests.check.helpers import problem_names, run_check
from tests.conftest import moving_frames, write_annotations, write_video
from vimoclip import store
from vimoclip.check.compatibility import motion_key_function
from vimoclip.flow.flow_folder import FlowFolder

NFC, NFD = "B\u00e4r", "Ba\u0308r"
LATIN1 = os.fsdecode(b"B\xe4r.mp4")


def test_chain_of_nested_videos_with_other_names(small_inputs: Path, tmp_path: Path) -> None:
    data = tmp_path / "dataset"
    clip = write_video(tmp_path / "clip.mp4", moving_frames(8, (1, 0), 64, 96), lossless=False).read_bytes()
    for name in (f"x/{NFD}.mp4", "a.mp4", "x/y/b.mp4", "x/two.mp4", "y/two.mp4", LATIN1, "x/._b.mp4", "notes.txt"):
        path = data / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip)
    found, ids = [f"{NFC}.mp4", "a.mp4", "b.mp4"], [f"{NFC}.mp4", "a.mp4", "b.mp4", "two.mp4", "gone.mp4"]
    write_annotations(data / "annotations", {"train": dict.fromkeys(ids, (0,))})
    flags = ["--dataset-dir", str(data), "--num-workers", "0"]

    clip_name = f"local-dir:{small_inputs / 'tinyclip'}"
    report = extract_embeddings.main([*flags, "--clip-model-name", clip_name])
    assert (report.done, set(report.failed)) == (3, {"two.mp4", "gone.mp4"})
    rgb = store.EmbeddingReader(data / "embeddings" / "ak_train_clip_embeddings.h5", "rgb")
    assert sorted(rgb.keys) == sorted(found)

    for _ in range(2):  # the second run must not read the output of the first
        report = extract_flows.main([*flags, "--videos-dir", str(data), "--model", "dis"])
        assert set(report.failed) == {"two.mp4", repr(LATIN1)}
        assert report.done + report.already_done == 3
    (data / "flows" / "y").mkdir()
    (data / "flows" / "a.mp4").rename(data / "flows" / "y" / "a.mp4")
    flows = FlowFolder(data / "flows")
    assert [flows.find(name) is not None for name in ids] == [True, True, True, False, False]

    (data / "flows" / LATIN1).write_bytes((data / "flows" / "b.mp4").read_bytes())
    report = inference.main([*flags, "--checkpoint-dir", str(small_inputs / "student.pth")])
    assert (report.done, set(report.failed)) == (3, {repr(LATIN1.removesuffix(".mp4"))})
    motion = store.EmbeddingReader(data / "embeddings" / "flow_embeddings.h5", "motion")
    assert {motion_key_function(motion)(name) for name in found} == set(motion.keys)

    problems = set(problem_names(run_check(data)))
    assert {name for name in problems if name.startswith(("videos", "flows"))} == {
        f"videos, {json.dumps(LATIN1)[1:-1]}, misfit",
        "videos, two.mp4, misfit",
        "videos, gone.mp4, missing",
        "flows, two.mp4, missing",
        "flows, gone.mp4, missing",
        f"flows, {json.dumps(LATIN1)[1:-1]}, misfit",
    }
    assert not [name for name in problems if NFC in name or NFD in name]


def test_one_folder_for_videos_and_flow(small_inputs: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("clip00.mp4", "clip01.mp4"):
        path = videos / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((small_inputs / "dataset" / "videos" / name).read_bytes())
    command = ["--videos-dir", str(videos), "--output-dir", str(videos / "flow"), "--model", "dis"]
    assert extract_flows.main(command).done == 2
    report = extract_flows.main([*command, "--report", str(tmp_path / "report.json")])
    assert (report.already_done, report.failed) == (2, {})
    assert stage_driver.folder_content(videos / "flow").keys() == {"clip00.mp4", "clip01.mp4"}
