"""Import of a table of videos and labels, and clips trimmed exactly to the frame."""

import json
from pathlib import Path

import av
import pytest

import prepare_dataset
from tests.conftest import indexed_frames, read_index, write_video
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.video import VideoReader


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 12 frames that carry their index, at 25 and (the last two) 30000/1001 frames/s."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(8):
        write_video(folder / f"v{i}.mp4", indexed_frames(12, seed=i), fps=25 if i < 6 else 30000 / 1001)
    return folder


def prepare(videos: Path, root: Path, text: str, *flags: str) -> Annotations:
    table = root / "table.csv"
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    command = ["csv", str(table), "--videos-dir", str(videos), "--dataset-dir", str(root / "dataset"), *flags]
    return annotations.load(prepare_dataset.main(command).outputs[0], "ak")


def label_names(data: Annotations) -> dict[str, tuple[str, ...]]:
    """Return the names of the labels by video."""
    return {
        video: tuple(data.classes[label] for label in labels)
        for videos in data.splits.values()
        for video, labels in videos.items()
    }


def copy_packets(path: Path, target_path: Path) -> None:
    """Write a video into another container."""
    with av.open(str(path)) as source, av.open(str(target_path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def frame_numbers(path: Path) -> list[int]:
    return [read_index(frame) for batch in VideoReader(path, 100) for frame in batch.frames]


def test_label_names_and_splits_of_the_table(videos: Path, tmp_path: Path) -> None:
    data = prepare(
        videos,
        tmp_path,
        "video,labels,split\nv0.mp4,walking; eating,train\nv1.mp4,,train\n"
        "v2.mp4,Eating,Validation\nv3.mp4,walking,test\n",
    )
    assert data.classes == ("eating", "walking")
    assert data.splits["train"] == {"v0.mp4": (0, 1), "v1.mp4": ()}
    assert data.splits["val"] == {"v2.mp4": (0,)}  # case does not matter
    assert data.splits["test"] == {"v3.mp4": (1,)}
    assert (tmp_path / "dataset" / "videos" / "v0.mp4").read_bytes() == (videos / "v0.mp4").read_bytes()
    assert "walking" in (tmp_path / "dataset" / "annotations" / "class_counts.html").read_text()


def test_one_hot_columns_as_saved_by_a_spreadsheet(videos: Path, tmp_path: Path) -> None:
    rows = [f"v{i}.mp4;{i % 2};{int(i > 2)};" for i in range(6)]
    text = "\ufeff" + "\r\n".join(["Video;grooming;lying, or so;", *rows, ";;;"]) + "\r\n"
    labels = label_names(prepare(videos, tmp_path, text))
    assert labels["v0.mp4"] == ()
    assert labels["v1.mp4"] == ("grooming",)
    assert labels["v5.mp4"] == ("grooming", "lying, or so")
    assert len(labels) == 6


def test_ids_refer_to_the_given_classes(videos: Path, tmp_path: Path) -> None:
    data = prepare(
        videos, tmp_path, "video,labels\nv0.mp4,0;2\nv1.mp4,resting\n", "--classes", "zoom", "eat", "resting"
    )
    assert data.classes == ("zoom", "eat", "resting")
    assert label_names(data) == {"v0.mp4": ("zoom", "resting"), "v1.mp4": ("resting",)}


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [("0.08", "0.2", 2, 4), ("0.081", "0.201", 3, 5), ("0", "0:00:00.04", 0, 0), ("0,36", "0,48", 9, 11)],
)
def test_clips_contain_the_frames_that_start_in_their_span(
    start: str, end: str, first: int, last: int, videos: Path, tmp_path: Path
) -> None:
    """Frame t of 25 frames/s begins at 0.04 t."""
    text = f'video,labels,start,end\nv0.mp4,a,"{start}","{end}"\nv1.mp4,b,,\n'
    data = prepare(videos, tmp_path, text)
    (clip,) = [name for name in label_names(data) if "ms" in name]
    assert frame_numbers(tmp_path / "dataset" / "videos" / clip) == list(range(first, last + 1))


def test_many_clips_of_one_video_with_a_fractional_frame_rate(videos: Path, tmp_path: Path) -> None:
    spans = [(0.0, 0.1), (0.05, 0.2), (0.3, 0.4), (0.033367, 0.25), (5.0, 6.0)]  # the time of frame 1, rounded up
    text = "video,labels,start,end\n" + "".join(f"v6.mp4,a,{a},{b}\n" for a, b in spans) + "v7.mp4,b,0,0.2\n"
    labels = label_names(prepare(videos, tmp_path, text))
    for start, stop in spans[:4]:
        expected = [t for t in range(12) if start - 1e-6 <= t * 1001 / 30000 < stop - 1e-6]
        name = f"v6_{round(1000 * start)}-{round(1000 * stop)}ms.mp4"
        assert frame_numbers(tmp_path / "dataset" / "videos" / name) == expected
    assert "v6_5000-6000ms.mp4" not in labels  # starts after the end of the video
    assert len(labels) == 5


def test_clips_of_one_video_are_in_one_split(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"v{i}.mp4,{'ab'[k % 2]},{k / 25},{(k + 2) / 25}" for i in range(6) for k in range(4)]
    data = prepare(videos, tmp_path, "video,labels,start,end\n" + "\n".join(lines))
    files_by_split = [{name.partition("_")[0] for name in videos} for videos in data.splits.values()]
    assert [len(files) for files in files_by_split] == [4, 2]
    assert not files_by_split[0] & files_by_split[1]
    selected = {name.partition("_")[0] for name in data.selection}
    assert len(data.selection) == 4 and len(selected) == 1  # all clips of one video
    assert "warning" not in capsys.readouterr().out


def test_group_by_column_and_warning_for_a_source_in_two_splits(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"v{i}.mp4,{'ab'[i % 2]},cow{i // 2}" for i in range(8)]
    data = prepare(videos, tmp_path, "\n".join(["video,labels,animal", *rows]), "--group-by", "animal")
    for split in data.splits.values():
        cows = [int(name[1]) // 2 for name in split]
        assert all(cows.count(cow) == 2 for cow in cows)
    assert "warning" not in capsys.readouterr().out
    rows = [f"{row},{'val' if i == 1 else 'train'}" for i, row in enumerate(rows)]
    conflict = tmp_path / "conflict"
    conflict.mkdir()
    prepare(videos, conflict, "\n".join(["video,labels,animal,split", *rows]), "--group-by", "animal")
    output = capsys.readouterr().out
    assert "warning: 1 sources are in train and in val, with 1 clips of val (cow0)" in output


def test_summary_counts(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (videos / "broken.mp4").write_bytes(b"no video")
    text = "video,labels\nv0.mp4,a\nv1.mp4,a;b\nv2.mp4,\nv3.mp4,b\nnowhere.mp4,b\nnowhere.mp4,a\nbroken.mp4,a\n"
    data = prepare(videos, tmp_path, text, "--report", str(tmp_path / "report.json"))
    (videos / "broken.mp4").unlink()
    output = capsys.readouterr().out
    train, val = (len(data.splits[name]) for name in ("train", "val"))
    assert f"4 clips: {train} in train, {val} in val; 2 actions" in output
    assert "0 in 1 clips, 1 in 2 clips, 2 in 1 clips" in output
    assert "0.5 to 0.5 s, median 0.5 s" in output
    assert "skipped: nowhere.mp4:" in output and "in 2 lines" in output and "skipped: broken.mp4:" in output
    counts = json.loads((tmp_path / "report.json").read_text())
    assert (counts["done"], counts["failed"]) == (4, {})
    assert set(counts["skipped"]) == {"nowhere.mp4", "broken.mp4"}
    assert "nowhere.mp4" in counts["skipped"]["nowhere.mp4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video,labels\nv0.mp4,a,b\n", ":2: "),
        ("file,labels\nv0.mp4,a\n", "column video "),
        ("video,labels,start\nv0.mp4,a,1\n", "start and end"),
        ("video,labels,start,end\nv0.mp4,a,2,1\n", ":2: .*1 s.*2 s"),
        ("video,labels,start,end\nv0.mp4,a,soon,1\n", ":2: 'soon'"),
        ("video,labels,start,end\nv0.mp4,a,-1,1\n", ":2: '-1'"),
        ("video,labels,start,end\nv0.mp4,a,0,1\nv0.mp4,a,1:75,2:00\n", ":3: '1:75'"),
        ("video,labels,start,end\nv0.mp4,a,0,00:00:00:05\n", ":2: .*--time-format timecode"),
        ("sep=;\nvideo;labels;start;end\nv0.mp4;a;0,1;0,2\nv0.mp4;a;0;0.3\n", ":4: .*line 3"),
        ("video,a,b\nv0.mp4,1,0\nv1.mp4,NA,0\n", ":3: a is 'NA'"),
        ("video,a,b\nv0.mp4,1,0\nv1.mp4,nan,0\n", ":3: a is 'nan'"),
        ("video,a,b\nv0.mp4,1,0\nv1.mp4,7,0\n", ":3: a is '7'"),
        ("video,labels,split\nv0.mp4,a,train\nv1.mp4,a,dev\n", ":3: .*'dev'"),
        ("video,labels,split\nv0.mp4,a,train\nv1.mp4,a,\n", ":3: "),
        ("video,labels,split\nv0.mp4,a,val\nv1.mp4,a,val\n", "split val"),
        ("video,labels,split\nv0.mp4,a,train\nv1.mp4,a,test\n", "split test, train"),
        ("video,labels,split\nv0.mp4,a,train\nv0.mp4,b,val\n", ":3: v0.mp4 .*val.*line 2.*train"),
        ("video,labels\n,a\n", ":2: "),
        ("video,labels\n", "table.csv: "),
        ("video,labels\nv0.mp4,\n", "table.csv: "),
        ("video,labels\nnowhere.mp4,a\n", "nowhere.mp4"),
    ],
)
def test_error_in_the_table_is_reported_with_its_line(text: str, words: str, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        prepare(videos, tmp_path, text)
    assert (caught.value.path or "").startswith(str(tmp_path / "table.csv"))
    assert not (tmp_path / "dataset" / "annotations").exists()


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [("00:00:00:02", "00:00:00:05", 2, 4), ("", "00:00:00:01", 0, 0), ("00:00:00:10", "", 10, 11)],
)
@pytest.mark.parametrize("video", ["v0.mp4", "v6.mp4", "v6.mkv"])
def test_timecodes_are_frames_at_the_rate_of_each_film(
    start: str, end: str, first: int, last: int, video: str, videos: Path, tmp_path: Path
) -> None:
    """At 25 and at 30000/1001 frames/s; Matroska rounds the times of frames to milliseconds."""
    if video == "v6.mkv":
        copy_packets(videos / "v6.mp4", videos / video)
    text = f"video,labels,start,end\n{video},a,{start},{end}\nv1.mp4,b,,\n"
    data = prepare(videos, tmp_path, text, "--time-format", "timecode")
    (clip,) = [name for name in label_names(data) if "ms" in name]
    assert frame_numbers(tmp_path / "dataset" / "videos" / clip) == list(range(first, last + 1))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ("00:00:00:00,0.5", "'0.5'"),
        ("00:00:00:00,0:00:01", "'0:00:01'"),
        ("00:00:00:00,00:00:00:25", "frame 25"),
        ("00:00:00;00,00:00:00;05", "drop-frame"),
        ("00:00:00:05,00:00:00:05", "00:00:00:05"),
        (",00:00:00:00", "00:00:00:00"),
    ],
)
def test_other_times_than_timecodes_are_refused(times: str, words: str, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f":2: .*{words}"):
        prepare(videos, tmp_path, f"video,labels,start,end\nv0.mp4,a,{times}\n", "--time-format", "timecode")


def test_labels_of_two_systems_and_spellings_are_one(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["v0.mp4,Ga\u0308hnen;Walk", "v1.mp4,g\u00e4hnen", "v2.mp4,G\u00e4hnen;walk", "v3.mp4, Walk ;walk"]
    data = prepare(videos, tmp_path, "\n".join(["VIDEO ,Labels", *rows]))
    assert data.classes == ("G\u00e4hnen", "Walk")
    assert label_names(data)["v1.mp4"] == ("G\u00e4hnen",)
    assert label_names(data)["v3.mp4"] == ("Walk",)
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "'G\u00e4hnen' = 'g\u00e4hnen'" in warning and "'Walk' = 'walk'" in warning


def test_labels_that_differ_only_in_unicode_form_are_one_without_a_warning(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, farms = ("Ga\u0308hnen", "G\u00e4hnen"), ("Ku\u0308he", "K\u00fche")
    rows = [f"v{i}.mp4,{labels[i % 2]},{farms[i % 2]}" for i in range(4)]
    flags = ("--classes", "Ga\u0308hnen", "--group-by", "ho\u0308he")
    table = "\n".join(["video,labels,h\u00f6he", *rows, "v4.mp4,,tal"])
    data = prepare(videos, tmp_path, table, *flags)
    assert data.classes == ("G\u00e4hnen",)
    assert set(annotations.read_sources(tmp_path / "dataset" / "annotations").values()) == {"K\u00fche", "tal"}
    assert "table.csv" not in capsys.readouterr().out


def test_one_hot_columns_of_two_spellings_are_one(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "sep=;\nvideo;Walk;walk;rest\nv0.mp4;1,0;0,0;0\nv1.mp4;0;1.0;\nv2.mp4;;;1,00\nv3.mp4;1;1;0\n"
    data = prepare(videos, tmp_path, text)
    assert data.classes == ("Walk", "rest")
    assert label_names(data) == {"v0.mp4": ("Walk",), "v1.mp4": ("Walk",), "v2.mp4": ("rest",), "v3.mp4": ("Walk",)}
    assert "warning: " in capsys.readouterr().out
    other = tmp_path / "other"
    other.mkdir()
    assert prepare(videos, other, text, "--classes", "REST", "walk").classes == ("REST", "walk")
    with pytest.raises(UserError, match="--classes"):
        prepare(videos, other, text, "--classes", "rest", "walk", "Walk")


def test_same_table_changes_nothing_and_another_is_an_error(videos: Path, tmp_path: Path) -> None:
    text = "video,labels,start,end\nv0.mp4,a,0,0.2\nv1.mp4,b,0,0.2\n"
    first = prepare(videos, tmp_path, text)
    clip = tmp_path / "dataset" / "videos" / "v0_0-200ms.mp4"
    before = clip.stat().st_mtime_ns
    assert prepare(videos, tmp_path, text) == first
    assert clip.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="b, c"):
        prepare(videos, tmp_path, text.replace(",b,", ",c,"))


def test_clips_of_one_file_are_in_one_split_for_any_groups(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overlapping clips of each video: one with an observer, one without observer, and one of the whole file."""
    lines = []
    for i in range(6):
        lines += (
            [f"v{i}.mp4,a,0,0.2,ann", f"v{i}.mp4,b,0.1,0.3,", f"v{i}.mp4,a,,,"]
            if i % 2
            else [
                f"v{i}.mp4,a,0,0.2,bob{i}",
                f"v{i}.mp4,b,0.1,0.3,cy{i}",
            ]
        )
    data = prepare(videos, tmp_path, "\n".join(["video,labels,start,end,who", *lines]), "--group-by", "who")
    files_by_split = [{name[:2] for name in videos} for videos in data.splits.values()]
    assert all(files_by_split) and not files_by_split[0] & files_by_split[1]
    assert any({"v1", "v3", "v5"} <= files for files in files_by_split)  # with clips of ann
    assert "warning" not in capsys.readouterr().out


def test_clip_of_a_replaced_file_is_trimmed_again(tmp_path: Path) -> None:
    videos_dir = tmp_path / "films"
    write_video(videos_dir / "f.mp4", indexed_frames(12))
    write_video(videos_dir / "g.mp4", indexed_frames(12, seed=1))
    text = "video,labels,start,end\nf.mp4,a,0,0.2\ng.mp4,b,0,0.2\n"
    prepare(videos_dir, tmp_path, text)
    clip = tmp_path / "dataset" / "videos" / "f_0-200ms.mp4"
    (videos_dir / "f.mp4").unlink()
    write_video(videos_dir / "f.mp4", indexed_frames(20)[5:])
    prepare(videos_dir, tmp_path, text)
    assert frame_numbers(clip) == [5, 6, 7, 8, 9]


def test_film_written_in_two_ways_is_in_one_split(videos: Path, tmp_path: Path) -> None:
    rows = ["v0.mp4,a,0,0.2,train", r"C:\x\V0.MP4,b,,0.2,val", "v1.mp4,a,0,0.2,val"]
    with pytest.raises(UserError, match=r":3: .*val.*line 2.*train"):
        prepare(videos, tmp_path, "\n".join(["video,labels,start,end,split", *rows]))
    assert not (tmp_path / "dataset").exists()


def test_labels_with_invisible_characters_are_one_class(videos: Path, tmp_path: Path) -> None:
    labels = ["walk", "walk\u200b", "\ufeffwalk", "walk\u00a0", "\u200b"]
    rows = [f"v{i}.mp4,{label}" for i, label in enumerate(labels)]
    data = prepare(videos, tmp_path, "\n".join(["\ufeff\ufeffvideo,labels", *rows]))
    assert data.classes == ("walk",) and label_names(data)["v4.mp4"] == ()
