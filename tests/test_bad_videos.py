"""One bad video is a line: each kind of damage and oddity through both extractors, and what they say of it.

Known limits: data that are damaged and still parse can't be noticed (the inside of an H.264, HEVC, VP9 or AV1 picture,
of a GIF's picture); where Matroska or MPEG-TS lost its beginning, frames are counted from what is left; a GIF ends at
its first damage."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import extract_embeddings
import extract_flows
from tests.conftest import REPOSITORY, indexed_frames, moving_frames, read_index, write_annotations, write_video
from tests.making import corrupt, cut_at, encode, overwrite, packets, patch, turn
from tests.test_video import decode, two_sizes, whole
from vimoclip import store, video
from vimoclip.errors import VideoError
from vimoclip.extraction import manifest
from vimoclip.flow.flow_lookup import FlowFolder

ALL = range(40)
UNEVEN = [0, 40, 90, 300, 310, 1000, 1040, 1900, 1950, 2000]  # ms
LONG = "ä" * 123 + "long"  # with .mp4 under 255 bytes, as every file that is made from it


def clip(
    path: Path, codec: str = "lossless", count: int = 40, size: tuple[int, int] = (48, 64), **options: Any
) -> Path:
    return encode(path, indexed_frames(count, *size), codec, **options)


corrupt_25, cut_at_17 = partial(corrupt, packet=25), partial(cut_at, packet=17)


def corrupt_all(path: Path) -> None:
    for number in range(40):
        corrupt(path, number)


def sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        for frame in (samples, None):
            container.mux(stream.encode(frame))


def no_frames(path: Path, **mux: str) -> None:
    with av.open(str(path), "w", options=mux) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 64, 48
        container.start_encoding()


def still(path: Path) -> None:
    encode(path, indexed_frames(1), "mjpeg", format="image2", update="1")


def says_more(path: Path) -> Path:
    """An AVI whose header speaks of 90 frames."""
    data = path.read_bytes()
    return overwrite(path, data.index(b"strh") + 40, (90).to_bytes(4, "little"))


def lose_25(path: Path) -> None:
    """Overwrite a packet with the header before it, by which an AVI's reader finds it."""
    at, size = packets(path)[25]
    overwrite(path, at - 8, b"\xff" * (size + 8))


def huge_gif(path: Path) -> None:
    overwrite(path, 6, (30000).to_bytes(2, "little") * 2)


def huge_avi(path: Path) -> None:
    patch(path, b"strf", (30000).to_bytes(4, "little") * 2, after=12)


def huge_jpegs(path: Path) -> None:
    """The pictures speak of 30000x30000 pixels, not the file."""
    for at, _ in packets(path):
        data = path.read_bytes()
        overwrite(path, data.index(b"\xff\xc0", at) + 5, (30000).to_bytes(2, "big") * 2)


def not_utf8(path: Path) -> Path:
    encode(path, indexed_frames(40), metadata={"title": "plain title", "comment": "plain comment"})
    patch(path, b"plain title", b"L\xf6we \xff\xfe\x00")
    return patch(path, b"plain comment", b"\xff\xd8{\xf6\xe4")


FFCONCAT = "ffconcat version 1.0\nfile secret.mp4\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


@dataclass(frozen=True)
class Case:
    """How a video is made and damaged, the line that it becomes, and the frames that are given of it."""

    make: Callable[[Path], object] | None
    damage: Callable[[Path], object] | None = None
    status: str = "ok"
    reason: str = ""
    given: Sequence[int] = ()
    expected: int | None = None
    flow: str = ""  # status of the flow, where it is another

    @property
    def counts(self) -> tuple[int | None, int | None]:
        if self.status == "failed":
            return None, None
        return self.expected or len(self.given), len(self.given)


def failing(make: Callable[[Path], object] | None, reason: str, damage: Callable[[Path], object] | None = None) -> Case:
    return Case(make, damage, "failed", reason)


def fine(make: Callable[[Path], object], given: Sequence[int] = ALL, reason: str = "") -> Case:
    return Case(make, given=given, reason=reason)


def partly(
    make: Callable[[Path], object], damage: Callable[[Path], object], given: Sequence[int], reason: str, of: int = 40
) -> Case:
    return Case(make, damage, "partial", reason, given, of)


WITHOUT_25_TO_29 = [*range(25), *range(30, 40)]

CASES: dict[str, Case] = {
    # what is no video
    "missing.mp4": failing(None, "there is no such file"),
    "empty.mp4": failing(Path.touch, "is empty (0 bytes)"),
    "text.mp4": failing(lambda path: path.write_text("no video\n" * 900), "is not a video that can be read"),
    "picture.mp4": failing(still, "but a picture, a playlist or the like"),
    "sound.mp4": failing(sound, "has no video stream (sound only?)"),
    "zero_frames.mp4": failing(partial(no_frames, movflags="empty_moov"), "has no frames"),
    "header_only.mkv": failing(no_frames, "ends before its first frame"),
    # what was cut short
    "index_lost.mp4": failing(clip, "an MP4 without a readable index (moov): cut short", lambda p: cut_at(p, 30)),
    "cut_mp4.mp4": partly(
        partial(clip, movflags="+faststart"), cut_at_17, range(17), "23 of 40 frames can't be decoded"
    ),
    "cut_avi.avi": partly(partial(clip, codec="mjpeg"), cut_at_17, range(17), "23 of 40 frames can't be decoded"),
    "cut_mkv.mkv": partly(partial(clip, codec="mjpeg"), cut_at_17, range(17), "there are 0.7 of 1.6 s"),
    "cut_gif.gif": partly(partial(clip, codec="gif"), cut_at_17, range(17), "behind frame 16", of=18),
    "says_more.avi": partly(partial(clip, codec="mjpeg"), says_more, ALL, "the header says more than there are", of=90),
    "one_frame.mp4": Case(partial(clip, count=1), given=range(1), flow="skipped"),
    # a packet that is damaged: up to the next keyframe, frames refer to what is lost
    "gap.mp4": partly(clip, corrupt_25, WITHOUT_25_TO_29, "5 of 40 frames can't be decoded: Invalid data found"),
    "gap_first.mp4": partly(clip, lambda p: corrupt(p, 0), range(10, 40), "10 of 40 frames can't be decoded"),
    "gap_last.mp4": partly(clip, lambda p: corrupt(p, 39), range(39), "1 of 40 frames can't be decoded"),
    "gap_all.mp4": failing(clip, "40 of 40 frames can't be decoded", corrupt_all),
    "gap_mpeg4.avi": partly(partial(clip, codec="mpeg4"), corrupt_25, WITHOUT_25_TO_29, "5 of 40"),
    "gap_mjpeg.avi": partly(partial(clip, codec="mjpeg"), corrupt_25, [*range(25), *range(26, 40)], "1 of 40"),
    "gap_chunk.avi": partly(partial(clip, codec="mpeg4"), lose_25, WITHOUT_25_TO_29, "5 of 40 frames can't be decoded"),
    # times and places
    "uneven.mkv": fine(partial(clip, count=10, times=UNEVEN), range(10)),
    "uneven_mp4.mp4": fine(partial(clip, count=10, times=UNEVEN), range(10)),
    "late.mkv": fine(partial(clip, times=[5000 + 40 * t for t in ALL])),
    "turned_90.mp4": fine(lambda p: turn(clip(p), 90)),
    "turned_180.mp4": fine(lambda p: turn(clip(p), 180)),
    # sizes
    "one_pixel.mp4": fine(partial(clip, count=8, size=(1, 1)), range(8)),
    "two_pixels.mp4": fine(partial(clip, count=8, size=(2, 2)), range(8)),
    "odd.mp4": fine(partial(clip, count=8, size=(31, 17)), range(8)),
    "wide.mp4": fine(partial(clip, count=8, size=(16, 4000)), range(8)),
    "two_sizes.mkv": fine(two_sizes, range(20), "frames change from 64x48 to 32x24 at frame 10"),
    # colours
    "gray.mp4": fine(partial(clip, codec="h264_gray")),
    "gray_png.mov": fine(partial(clip, codec="png_gray")),
    "alpha.mov": fine(partial(clip, codec="png")),
    "10_bit.mp4": fine(partial(clip, codec="h264_10bit")),
    # codecs
    "h264.mp4": fine(partial(clip, codec="h264")),
    "hevc.mkv": fine(partial(clip, codec="hevc")),
    "hevc_10_bit.mp4": fine(partial(clip, codec="hevc_10bit")),
    "vp9.webm": fine(partial(clip, codec="vp9")),
    "av1.mp4": fine(partial(clip, codec="av1", size=(64, 64))),
    "mpeg4.avi": fine(partial(clip, codec="mpeg4")),
    "mjpeg.avi": fine(partial(clip, codec="mjpeg")),
    "plain.gif": fine(partial(clip, codec="gif")),
    # names
    "matroska.avi": fine(partial(clip, format="matroska")),
    "gif.mp4": fine(partial(clip, codec="gif", format="gif")),
    "Löwe 獅子 🦁  two spaces.mp4": fine(clip),
    f"{LONG}.mp4": fine(clip),
    "-hyphen.mp4": fine(clip),
    "hls.mp4": failing(lambda p: p.write_text(HLS), "is not a video"),
    # what a stranger may have put into a header
    "not_utf8.mp4": fine(not_utf8),
    "huge.gif": failing(partial(clip, codec="gif"), "no size that can be read, or more", huge_gif),
    "huge_avi.avi": failing(partial(clip, codec="raw"), "no size that can be read, or more", huge_avi),
    "huge_jpeg.avi": failing(partial(clip, codec="mjpeg"), "40 of 40 frames can't be decoded", huge_jpegs),
}


# --- both extractors, on all of them in one folder


@dataclass(frozen=True)
class Ran:
    """What both extractors left of the videos: their manifests and closing summaries, and where it all is."""

    folder: Path
    rgb: dict[str, manifest.Entry]
    flow: dict[str, manifest.Entry]
    reports: dict[str, Any]

    def video(self, name: str) -> Path:
        return self.folder / "videos" / name

    def original(self, name: str) -> Path:
        return self.folder / "originals" / name

    def flow_video(self, name: str) -> Path:
        return self.folder / "flows" / f"{Path(name).stem}.mp4"

    @property
    def embeddings(self) -> Path:
        return self.folder / "embeddings" / "ak_train_clip_embeddings.h5"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_clip: str) -> Ran:
    folder = tmp_path_factory.mktemp("bad") / "dataset"
    for name in ("videos", "originals"):
        (folder / name).mkdir(parents=True)
    for name, case in CASES.items():
        if case.make:
            case.make(folder / "originals" / name)
            shutil.copy(folder / "originals" / name, folder / "videos" / name)
        if case.damage:
            case.damage(folder / "videos" / name)
    write_annotations(folder / "annotations", {"train": dict.fromkeys(CASES, (0,))})
    rgb = extract_embeddings.main(["--dataset-dir", str(folder), "--clip-model-name", tiny_clip])
    flow = extract_flows.main(["--dataset-dir", str(folder), "--model", "dis"])
    lines = {stage: manifest.read(report.manifests[0]) for stage, report in (("rgb", rgb), ("flow", flow))}
    return Ran(folder, lines["rgb"], lines["flow"], {"rgb": rgb, "flow": flow})


def check_line(entry: manifest.Entry, case: Case, status: str, path: Path) -> None:
    assert (entry.status, entry.frames_expected, entry.frames_decoded) == (status, *case.counts)
    assert case.reason in entry.reason
    assert (entry.reason == "") == (status == "ok" and not case.reason)
    there = path.stat() if path.exists() else None
    assert (entry.size, entry.mtime) == ((there.st_size, there.st_mtime) if there else (None, None))
    assert 0 <= entry.seconds < 60


@pytest.mark.parametrize("name", CASES)
def test_each_video_is_a_line_of_either_manifest(ran: Ran, name: str) -> None:
    case = CASES[name]
    check_line(ran.rgb[name], case, case.status, ran.video(name))
    if not case.make:
        assert name not in ran.flow
    elif case.flow == "skipped":
        assert ran.flow[name].status == "skipped"
        assert ran.flow[name].reason == "has one kept frame, so there is no flow"
    else:
        check_line(ran.flow[name], case, case.status, ran.video(name))


@pytest.mark.parametrize("name", CASES)
def test_rgb_and_flow_agree_on_the_frames(ran: Ran, name: str) -> None:
    given, reader = list(CASES[name].given), store.Reader(ran.embeddings)
    assert (name in reader.keys) == bool(given)
    assert ran.flow_video(name).exists() == (len(given) > 1)
    if given:
        assert reader.frame_indices(name).tolist() == given  # type: ignore[union-attr]
        assert len(reader.embeddings(name)) == len(given)
    if len(given) > 1:
        info = video.probe(ran.flow_video(name))
        assert info.frames == len(whole(ran.flow_video(name))) == len(given) - 1
        assert video.described_indices(info.comment).tolist() == given  # type: ignore[union-attr]
        told = video.described_timestamps(info.comment, float(info.fps))
        assert np.allclose(told, reader.timestamps(name), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.given])
def test_frames_that_are_given_are_those_of_the_whole_video_and_say_when(ran: Ran, name: str) -> None:
    original, before = decode(ran.original(name))
    batches, end = decode(ran.video(name), batch_size=7)
    given = list(CASES[name].given)
    assert end.frame_indices.tolist() == given
    assert np.array_equal(np.concatenate(batches), np.concatenate(original)[given])
    assert end.timestamps == pytest.approx(before.timestamps[given])


UNREADABLE = {"one_pixel.mp4", "two_pixels.mp4", "turned_90.mp4", "turned_180.mp4"}  # too small, or on their side


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.given and name not in UNREADABLE])
def test_each_frame_shows_its_own_index(ran: Ran, name: str) -> None:
    assert [read_index(frame) for frame in whole(ran.video(name))] == list(CASES[name].given)


def test_the_summary_counts_and_names_them(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    for stage, lines in (("rgb", ran.rgb), ("flow", ran.flow)):
        report = ran.reports[stage]
        report.print()
        out = capsys.readouterr().out
        count = {status: [name for name in lines if lines[name].status == status] for status in manifest.STATUSES}
        counts = ", ".join(f"{len(count[status])} {status}" for status in ("partial", "skipped", "failed"))
        assert f"{len(count['ok'])} done, 0 done already, {counts}\n" in out
        for status in ("partial", "skipped", "failed"):
            for name in count[status]:
                line = next(line for line in out.splitlines() if line.startswith(f"  {status}: {name}: "))
                assert line.endswith(lines[name].reason)


def test_one_failed_video_makes_exit_code_1_and_is_named(tmp_path: Path) -> None:
    clip(tmp_path / "dataset/videos/good.mp4", count=4)
    (tmp_path / "dataset/videos/bad.mp4").touch()
    command = [sys.executable, str(REPOSITORY / "extract_flows.py"), "--model", "dis"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "1 done, 0 done already, 0 partial, 0 skipped, 1 failed" in done.stdout
    assert "  failed: bad.mp4: is empty (0 bytes)" in done.stdout
    assert "Traceback" not in done.stderr


# --- times, sides, colours


@pytest.mark.parametrize("name", ["uneven.mkv", "uneven_mp4.mp4"])
def test_uneven_times_are_those_of_the_file(ran: Ran, name: str) -> None:
    assert store.Reader(ran.embeddings).timestamps(name) == pytest.approx(np.array(UNEVEN) / 1000, abs=1e-6)


def test_a_gap_shows_in_the_times(ran: Ran) -> None:
    assert store.Reader(ran.embeddings).timestamps("gap.mp4") == pytest.approx(np.array(WITHOUT_25_TO_29) / 25)


def test_frames_left_out_of_an_avi_on_purpose_are_no_damage_and_show_in_the_times(tmp_path: Path) -> None:
    kept = [*range(10), *range(13, 40)]  # as by a camera that was too slow
    path = encode(tmp_path / "a.avi", indexed_frames(40)[kept], "mjpeg", times=kept, ticks=25)
    batches, end = decode(path, batch_size=50)
    assert [read_index(frame) for frame in batches[0]] == kept
    assert (end.frame_indices.tolist(), end.expected, end.problem) == (list(range(37)), 37, "")
    assert end.timestamps == pytest.approx(np.array(kept) / 25)


@pytest.mark.parametrize(("name", "quarters"), [("turned_90.mp4", 1), ("turned_180.mp4", 2)])
def test_frames_come_upright(ran: Ran, name: str, quarters: int) -> None:
    turned = np.rot90(indexed_frames(40), -quarters, axes=(1, 2))  # clockwise
    assert np.array_equal(whole(ran.video(name)), turned)
    size = turned.shape[1:3]
    assert whole(ran.flow_video(name)).shape[1:3] == size


@pytest.mark.parametrize("codec", ["h264_gray", "png_gray", "h264_10bit", "hevc_10bit"])
def test_gray_comes_as_gray_at_any_depth(tmp_path: Path, codec: str) -> None:
    frames = moving_frames(4, (1, 0))[..., :1].repeat(3, axis=-1)
    back = whole(encode(tmp_path / "a.mov", frames, codec))
    assert np.abs(back.astype(int) - frames).max() <= 6
    assert np.ptp(back.astype(int), axis=-1).max() <= 3


@pytest.mark.parametrize("codec", ["h264_10bit", "hevc_10bit", "vp9", "av1", "h264_444"])
def test_colours_are_kept(tmp_path: Path, codec: str) -> None:
    wheel = np.array([[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255], [255] * 3])
    blocks = wheel.astype(np.uint8).repeat(16, axis=0)[None, None].repeat(64, axis=1).repeat(3, axis=0)
    back = whole(encode(tmp_path / "a.mkv", blocks, codec))
    assert np.abs(back.astype(int) - blocks)[:, 8:-8, 8::16].max() <= 12


def test_alpha_is_left_away(tmp_path: Path) -> None:
    frames = moving_frames(3, (1, 0))
    alpha = np.arange(64, dtype=np.uint8) * 4
    with_alpha = np.concatenate([frames, np.broadcast_to(alpha[:, None], (3, 48, 64, 1))], axis=-1)
    assert np.array_equal(whole(encode(tmp_path / "a.mov", with_alpha, "png")), frames)


# --- any packet of any codec

KINDS = ("h264.mp4", "h264.mkv", "hevc.mp4", "hevc.mkv", "vp9.webm", "av1.mp4", "av1.mkv", "mpeg4.avi", "mjpeg.avi")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for name in KINDS:
        encode(folder / name, indexed_frames(40, 64, 64), name.partition(".")[0])
    return folder


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=10, deadline=None)
@given(packet=st.integers(0, 39), byte=st.sampled_from([0x00, 0xFF]))
def test_what_is_given_around_a_damaged_packet_is_right(kinds: Path, name: str, packet: int, byte: int) -> None:
    original, before = decode(kinds / name)
    path = kinds / f"damaged_{name}"
    shutil.copy(kinds / name, path)
    batches, end = decode(corrupt(path, packet, byte))
    indices = end.frame_indices
    lost = sorted(set(ALL) - set(indices.tolist()))
    assert np.array_equal(np.concatenate(batches), np.concatenate(original)[indices])
    assert end.timestamps == pytest.approx(before.timestamps[indices])
    assert end.problem.startswith(f"{len(lost)} of 40 frames can't be decoded: ")
    assert 0 < len(lost) <= lost[-1] - lost[0] + 1 <= 20


# --- what makes FFmpeg open other files


def test_playlists_that_point_at_a_secret_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4", indexed_frames(3))
    encode(tmp_path / "secret.ts", indexed_frames(3), "h264")
    for number, text in enumerate((FFCONCAT, HLS, SDP)):
        path = tmp_path / f"{number}.mp4"
        path.write_text(text)
        if text != SDP:  # as FFmpeg by itself would
            with av.open(str(path), format="concat" if text == FFCONCAT else "hls") as container:
                assert len(list(container.decode(video=0))) == 3
        calls: tuple[Callable[[Path], object], ...] = (video.probe, whole, video.SpanReader)
        for call in calls:
            with pytest.raises(VideoError, match="is not a video"):
                call(path)


# --- hostile comments


HOSTILE: list[Any] = [
    {"kept_frames": 10**12, "frame_indices": {"start": 0, "step": 1}, "timestamps": {"start": 0.0}},
    {"kept_frames": 2**28, "frame_indices": {"start": 0, "step": 1}},
    {"kept_frames": 3, "frame_indices": {"start": 10**400, "step": 1}},
    {"kept_frames": 3, "frame_indices": {"start": 0}},
    {"kept_frames": [3], "frame_indices": {"start": 0, "step": 1}},
    {"kept_frames": 3, "frame_indices": [[0, 1, 2]]},
    {"kept_frames": 3, "frame_indices": ["a", None, {}]},
    {"kept_frames": 3, "frame_indices": "012"},
    {"kept_frames": 1e400, "frame_indices": [0]},
    {"kept_frames": -3, "frame_indices": []},
    {"kept_frames": None, "frame_indices": None, "timestamps": None, "method": [], "video": {}, "sampling": 5},
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"kept_frames": ' + "9" * 10_000 + "}",
    "[1, 2, 3]",
    "null",
]


@pytest.mark.parametrize("shown", [["a"], {"a": 1}, 5, True, "../../x", "a/b", "a\nb", "", "..", "x" * 300])
def test_a_comment_that_names_no_video_leaves_it_to_the_file_name(tmp_path: Path, shown: Any) -> None:
    path = clip(tmp_path / "cow_raft_things.mp4", count=2, metadata={"comment": json.dumps({"video": shown})})
    assert FlowFolder(tmp_path).by_stem() == {"cow": path}
    assert FlowFolder(tmp_path).find("cow.mp4") == path


@pytest.mark.parametrize("comment", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_comment_describes_nothing_and_does_no_harm(tmp_path: Path, comment: Any) -> None:
    text = comment if isinstance(comment, str) else json.dumps(comment)
    info = video.probe(clip(tmp_path / "a.mp4", count=2, metadata={"comment": text}))
    assert info.comment is None or info.comment == comment
    assert video.described_indices(info.comment) is None
    assert video.described_timestamps(info.comment, 25.0) is None


@pytest.mark.parametrize("timestamps", [None, "x", {}, {"start": "x"}, [0.0], [[0.0], [1.0]], ["a", "b"], 5])
def test_hostile_timestamps_describe_nothing(timestamps: Any) -> None:
    comment = {"kept_frames": 2, "frame_indices": [0, 1], "timestamps": timestamps}
    assert video.described_timestamps(comment, 25.0) is None


# --- memory


@pytest.fixture(scope="module")
def absurd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that are absurdly large, or would become so at a shorter side of 224."""
    folder = tmp_path_factory.mktemp("absurd")
    clip(folder / "warm" / "a.mp4", count=2)
    clip(folder / "wide" / "a.mp4", count=20, size=(2, 1500))
    clip(folder / "wide" / "b.mp4", count=20, size=(2, 4000))
    clip(folder / "wide" / "c.mp4", count=20, size=(2, 60))
    for name in ("huge.gif", "huge_avi.avi", "huge_jpeg.avi"):
        case, path = CASES[name], folder / "headers" / name
        assert case.make and case.damage
        path.parent.mkdir(exist_ok=True)
        case.make(path)
        case.damage(path)
    encode(folder / "headers" / "large.avi", np.zeros((1, 4096, 4096, 3), np.uint8).repeat(16, axis=0), "mjpeg")
    return folder


def within_two_gigabytes(folder: Path) -> None:
    """In a process of its own, as the limit stays."""
    import torch

    from vimoclip.clip import Preprocess

    torch.set_num_threads(1)

    def flow(name: str) -> Any:
        target = ["--videos-dir", str(folder / name), "--output-dir", str(folder / "flows" / name), "--overwrite"]
        return extract_flows.main([*target, "--model", "dis", "--size", "224", "--num-workers", "1"])

    flow("warm")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**31, taken + 2**31))
    report = flow("wide")
    assert (report.done, set(report.failed)) == (1, {"a.mp4", "b.mp4"}), report
    assert all("too large" in reason for reason in report.failed.values())
    config = {"image_size": [224, 224], "resize_mode": "shortest", "resize": "model", "interpolation": "bicubic"}
    prepare = Preprocess(config | {"fill_color": 0, "mean": [0.0] * 3, "std": [1.0] * 3})
    assert prepare(np.zeros((32, 16, 8000, 3), np.uint8)).shape == (32, 3, 224, 224)
    for name in ("huge.gif", "huge_avi.avi", "huge_jpeg.avi"):
        with pytest.raises(VideoError):
            whole(folder / "headers" / name)
    for overlap in (0, 1):
        frames = 0
        for item in video.read(folder / "headers" / "large.avi", 32, overlap=overlap):
            frames += len(item) - overlap * (frames > 0) if isinstance(item, np.ndarray) else 0
        assert frames == 16


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_absurd_sizes_take_no_gigabytes(absurd: Path) -> None:
    code = f"from tests.test_bad_videos import *; within_two_gigabytes(Path({str(absurd)!r}))"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- a flow video that is damaged itself


def test_tfam_names_the_video_whose_flow_is_damaged(ran: Ran, tiny_clip: str, tmp_path: Path) -> None:
    import inference
    from TFAM.data import pair
    from vimoclip import clip as encoders
    from vimoclip import moclip
    from vimoclip.training import checkpoint

    flows, output = tmp_path / "flows", tmp_path / "motion.h5"
    flows.mkdir()
    for name in ("h264.mp4", "hevc.mkv", "vp9.webm"):
        shutil.copy(ran.flow_video(name), flows)
    corrupt(flows / "hevc.mp4", 33)
    corrupt(flows / "vp9.mp4", 0)
    config = {"clip": encoders.load(tiny_clip, None).config, "num_classes": 3, "alpha": 0.1, "flow": {}, "teacher": {}}
    torch_state = moclip.build(config).state_dict()
    checkpoint.save_checkpoint(tmp_path / "run" / "student_best.pth", {"state_dict": torch_state, "config": config})
    report = inference.main(
        ["--checkpoint-dir", str(tmp_path / "run"), "--flow-videos-dir", str(flows), "--output-h5-path", str(output)]
    )
    assert set(report.partial) == {"hevc", "vp9"}
    motion = store.Reader(output, "motion")
    pairs = pair(store.Reader(ran.embeddings, "rgb"), motion, "cross_attention")
    assert [name for name, _ in pairs.keys] == ["h264.mp4"]
    for name in ("hevc.mkv", "vp9.webm"):
        there = motion.length(Path(name).stem)
        assert 0 < there < 39
        assert pairs.left_out[name] == f"40 RGB frames need 39 motions, but there are {there}"
