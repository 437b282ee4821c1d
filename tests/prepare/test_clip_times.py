"""Clips keep their film's times: lengths, frame rates, sampling by --fps, and clips and measurements made before."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prepare_dataset
from tests import video_files
from tests.conftest import indexed_frames, modification_times, read_index, write_annotations, write_video
from vimoclip.errors import UserError
from vimoclip.prepare import film_lengths
from vimoclip.prepare.film_lengths import FilmMeasurer
from vimoclip.prepare.place_videos import TrimSpan, trim_video
from vimoclip.video import Sampling, VideoReader, probe

PHONE_TIMES = [
    *(500 * i for i in range(60)),
    *(30000 + 1500 * i for i in range(20)),
    *(60000 + 500 * i for i in range(60)),
]
PHONE_TICKS = 15000  # 30 frames/s for 2 s, 10 for 2 s, 30 for 2 s


def write_phone(path: Path) -> Path:
    return video_files.encode(path, indexed_frames(140), "h264", times=PHONE_TIMES, ticks=PHONE_TICKS)


def kept(path: Path, sampling: Sampling) -> tuple[list[int], list[float]]:
    """Return the frames that are kept, as numbers in the film, and their times."""
    batches = list(VideoReader(path, 100, sampling))
    times = np.concatenate([batch.timestamps for batch in batches])
    return [read_index(frame) for batch in batches for frame in batch.frames], times.tolist()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_clips_of_a_variable_frame_rate_last_as_long_as_they_lasted(suffix: str, tmp_path: Path) -> None:
    write_phone(tmp_path / f"a{suffix}")
    spans = [(0, 2), (2, 4), (3.5, 4.5), (4, 6)]
    lines = [f"a{suffix},walk,{start},{stop}" for start, stop in spans]
    (tmp_path / "t.csv").write_text("\n".join(["video,labels,start,end", *lines]))
    prepare_dataset.main(["csv", str(tmp_path / "t.csv"), "--dataset-dir", str(tmp_path / "dataset")])
    for start, stop in spans:
        clip = tmp_path / "dataset" / "videos" / f"a_{round(1000 * start)}-{round(1000 * stop)}ms.mp4"
        assert probe(clip).seconds == pytest.approx(stop - start, abs=0.0011)
        numbers, times = kept(clip, Sampling())
        assert numbers == [i for i, time in enumerate(PHONE_TIMES) if start <= time / PHONE_TICKS < stop]
        assert times == pytest.approx([PHONE_TIMES[i] / PHONE_TICKS - start for i in numbers], abs=0.0011)
        numbers, times = kept(clip, Sampling(fps=5))
        assert times == pytest.approx(np.arange(0, stop - start, 0.2))


@pytest.mark.parametrize(("suffix", "rate"), [(".mp4", "30000/1001"), (".mp4", "24000/1001"), (".avi", "25")])
def test_clips_of_a_constant_frame_rate_have_exactly_that_rate(suffix: str, rate: str, tmp_path: Path) -> None:
    """In the .mp4 film, the last frame lasts 0.04 s, so that the header's mean rate is another."""
    fps, film = Fraction(rate), tmp_path / f"a{suffix}"
    times = [i * fps.denominator for i in range(60)]
    codec = "mpeg4" if suffix == ".avi" else "h264"
    video_files.encode(film, indexed_frames(60), codec, times=times, ticks=fps.numerator)
    spans = [TrimSpan(tmp_path / f"{start}.mp4", start, start + 0.9) for start in (0.0, 0.5, 1.01)]
    seconds = trim_video(film, spans)
    for span in spans:
        numbers = [i for i in range(60) if span.start <= i / fps < span.stop]
        info = probe(span.target)
        assert info.fps == fps and seconds[span.target] == info.seconds == pytest.approx(len(numbers) / fps)
        assert kept(span.target, Sampling())[0] == numbers


def test_a_pause_of_the_film_does_not_lengthen_the_clip_before_it(tmp_path: Path) -> None:
    """Frames of 0..0.36 s and from 9 s on."""
    times = [*range(0, 400, 40), *range(9000, 9400, 40)]
    film = video_files.encode(tmp_path / "a.mkv", indexed_frames(20), "h264", times=times)
    spans = [TrimSpan(tmp_path / "1.mp4", 0.0, 1.0), TrimSpan(tmp_path / "2.mp4", 0.2, 9.2)]
    seconds = trim_video(film, [*spans, TrimSpan(tmp_path / "3.mp4", 1.0, 2.0)])
    assert [seconds[span.target] for span in spans] == pytest.approx([1.0, 9.0])
    assert seconds[tmp_path / "3.mp4"] == "no frame begins in it"


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=20, max_size=40), st.sampled_from([1, 4, 5, 12.5]), st.integers(0, 8))
def test_fps_keeps_the_frames_of_the_film(
    tmp_path_factory: pytest.TempPathFactory, intervals: list[int], fps: float, tick: int
) -> None:
    """A frame that the film's time stamps round to before the clip is not in it: its first frame is kept instead."""
    folder, start = tmp_path_factory.mktemp("film"), tick / fps
    times = np.concatenate([[0], np.cumsum(intervals)])
    film = video_files.encode(folder / "a.mkv", indexed_frames(len(times)), "lossless", times=times.tolist())
    of_film = kept(film, Sampling(fps=fps))[0]
    in_span = [i for i, time in enumerate(times) if start <= time / 1000 < start + 2]
    clip = folder / "b.mp4"
    trim_video(film, [TrimSpan(clip, start, start + 2)])
    assert clip.exists() == bool(in_span)
    if in_span:
        assert kept(clip, Sampling(fps=fps))[0] == [i for i in in_span if i in of_film or i == in_span[0]]


@pytest.mark.parametrize("fps", [4.0, 5.0])
def test_the_grid_begins_at_the_start_of_the_clip_not_at_its_first_frame(fps: float, tmp_path: Path) -> None:
    """At 10 frames/s and 0.19 s late, the grid of the first frame keeps other frames than that of the film."""
    film = video_files.encode(tmp_path / "a.mkv", indexed_frames(40), "h264", times=[0, *range(190, 4090, 100)])
    of_film, times = kept(film, Sampling(fps=fps))
    trim_video(film, [TrimSpan(tmp_path / "b.mp4", 1.0, 3.0)])
    assert kept(tmp_path / "b.mp4", Sampling(fps=fps))[0] == [
        i for i, time in zip(of_film, times, strict=True) if 1 <= time < 3
    ]
    with av.open(str(tmp_path / "b.mp4")) as container:
        comment = json.loads(container.metadata["comment"])
    assert comment["times"] == "source" and comment["span"] == [1.0, 3.0] and comment["first_frame"] == 1.09


@pytest.mark.parametrize(
    "entries",
    [
        *({"first_frame": value} for value in ("x", None, 10**400, float("nan"), -1e300)),
        *({"span": value} for value in (1, [], [float("inf"), 1])),
        {"times": {}},
    ],
)
def test_an_invalid_comment_does_not_stop_the_sampling(entries: dict[str, object], tmp_path: Path) -> None:
    comment = {"times": "source", "span": [1.0, 2.0], "first_frame": 1.0, **entries}
    path = video_files.encode(tmp_path / "a.mp4", indexed_frames(10), metadata={"comment": json.dumps(comment)})
    assert kept(path, Sampling(fps=5))[0] == [0, 5]


def test_clips_that_an_earlier_version_cut_are_named_and_cut_again(tmp_path: Path) -> None:
    """Films of a constant and of a variable rate, and one that ended in its clip, whose comment has no span."""
    sizes = {"a": write_video(tmp_path / "a.mp4", indexed_frames(50)).stat().st_size}
    sizes["b"] = write_phone(tmp_path / "b.mp4").stat().st_size
    videos = tmp_path / "dataset" / "videos"
    spans = {"a_0-1000ms.mp4": [0.0, 1.0], "a_1000-9000ms.mp4": None, "b_0-2000ms.mp4": [0.0, 2.0]}
    for name, span in spans.items():
        comment = {"cut_from": f"{name[0]}.mp4", "bytes": sizes[name[0]], **({"span": span} if span else {})}
        count = 64 if name[0] == "b" else 25
        video_files.encode(videos / name, indexed_frames(count), "h264", metadata={"comment": json.dumps(comment)})
    names = list(spans)
    write_annotations(tmp_path / "dataset" / "annotations", {"train": dict.fromkeys(names, (0,)), "val": {}})
    output = tmp_path / "check.json"
    check = ["check", "--dataset-dir", str(tmp_path / "dataset"), "--json", str(output)]
    with pytest.raises(UserError):
        prepare_dataset.main(check)
    report = json.loads(output.read_text())
    assert [(p["area"], p["id"], p["kind"]) for p in report["problems"]] == [("videos", n, "misfit") for n in names[1:]]
    assert [note["id"] for note in report["notes"] if note["area"] == "videos"] == names[:1]

    trim_video(tmp_path / "a.mp4", [TrimSpan(videos / names[0], 0.0, 1.0), TrimSpan(videos / names[1], 1.0, 9.0)])
    trim_video(tmp_path / "b.mp4", [TrimSpan(videos / names[2], 0.0, 2.0)])
    assert [probe(videos / name).frames for name in names] == [25, 25, 60]
    before = modification_times(videos)
    trim_video(tmp_path / "b.mp4", [TrimSpan(videos / names[2], 0.0, 2.0)])
    assert modification_times(videos) == before
    prepare_dataset.main(check)
    report = json.loads(output.read_text())
    assert report["fine"] and not [note for note in report["notes"] if note["area"] == "videos"]


def test_a_film_that_an_earlier_version_measured_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of the earlier version, whose times went back, has all keys but one."""
    monkeypatch.setattr(film_lengths, "UNSAVED_SECONDS", 0.0)
    film, lines = write_video(tmp_path / "a.mp4", indexed_frames(30)), tmp_path / film_lengths.FILMS_FILE
    FilmMeasurer(tmp_path).measure(film)
    line = json.loads(lines.read_text())
    lines.write_text(json.dumps({**line, "header_seconds": 7.0}) + "\n")
    assert FilmMeasurer(tmp_path).measure(film).header_seconds == 7.0  # is not decoded again
    del line["clock"]
    lines.write_text(json.dumps({**line, "header_seconds": 7.0}) + "\n")
    assert FilmMeasurer(tmp_path).measure(film).header_seconds == pytest.approx(1.2)
    assert json.loads(lines.read_text())["clock"] == "continuous"


def test_clips_of_an_interlaced_film_are_deinterlaced_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two fields are black and white, and change places. A clip cut with another setting is cut again."""
    combed = np.zeros((20, 48, 64, 3), np.uint8)
    combed[::2, ::2] = combed[1::2, 1::2] = 255
    video_files.encode(tmp_path / "a.mkv", combed, "h264_interlaced")
    (tmp_path / "t.csv").write_text("video,labels,start,end\na.mkv,walk,0,0.8\n")
    contrast = {}
    for setting in ("off", "auto", "auto"):
        command = ["csv", str(tmp_path / "t.csv"), "--dataset-dir", str(tmp_path / "dataset"), "--deinterlace", setting]
        prepare_dataset.main(command)
        (batch,) = VideoReader(tmp_path / "dataset/videos/a_0-800ms.mp4", 100)
        assert len(batch.frames) == 20
        contrast[setting] = np.abs(np.diff(batch.frames.astype(int), axis=1)).mean()
    assert contrast["off"] > 200
    assert contrast["auto"] < 100
    assert capsys.readouterr().out.count("20 of 20 frames are interlaced") == 2
