"""Every software encoder of the PyAV build in every container: the same frames in the same order as plain PyAV."""

import contextlib
from pathlib import Path

import av
import pytest
from av.codec import Codec
from av.codec.codec import Capabilities, UnknownCodecError
from av.error import FFmpegError

from tests.conftest import indexed_frames
from tests.video.plain_decoding import LOSSY, OPTIONS, Clip, decode_plainly, differences
from vimoclip import video

COUNT = 12
# extension: FFmpeg's muxer and its options
CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("mp4", {}),
    ".f4v": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),  # as streams are recorded
    ".m4v": ("ipod", {}),
    ".mov": ("mov", {}),
    ".3gp": ("3gp", {}),
    ".3g2": ("3g2", {}),
    ".mkv": ("matroska", {}),
    ".webm": ("webm", {}),
    ".avi": ("avi", {}),
    ".wmv": ("asf", {}),
    ".flv": ("flv", {}),
    ".ts": ("mpegts", {}),
    ".m2ts": ("mpegts", {"mpegts_m2ts_mode": "1"}),
    ".mpg": ("mpeg", {}),
    ".vob": ("vob", {}),
    ".m1v": ("mpeg1video", {}),
    ".m2v": ("mpeg2video", {}),
    ".ogv": ("ogg", {}),
    ".gif": ("gif", {}),
    ".dv": ("dv", {}),
    ".mxf": ("mxf", {}),
    ".nut": ("nut", {}),
    ".ivf": ("ivf", {}),
    ".y4m": ("yuv4mpegpipe", {}),
    ".wtv": ("wtv", {}),
    ".rm": ("rm", {}),
}
SAME_AS = {
    ".asf": ".wmv",
    ".divx": ".avi",
    ".m2t": ".ts",
    ".mod": ".mpg",
    ".mpe": ".mpg",
    ".mpeg": ".mpg",
    ".mts": ".m2ts",
    ".ogm": ".ogv",
    ".qt": ".mov",
    ".rmvb": ".rm",
    ".tod": ".ts",
}
NO_MUXER = {".cine", ".dav", ".ser"}  # FFmpeg reads them only
TAKE_ANY_CODEC = {"mpegts", "mpeg", "vob"}  # most codecs in them are not recognised when the file is read
EXCLUDED_ENCODERS = {"vnull": "writes nothing", "wrapped_avframe": "writes addresses in memory"}
# codecs of pictures, consoles and sound players that no container of these accepts
IN_NO_CONTAINER = (
    {"a64multi", "a64multi5", "alias_pix", "apng", "bitpacked", "bmp", "fits", "hdr"}
    | {"libwebp", "libwebp_anim", "pam", "pbm", "pcx", "pfm", "pgm", "pgmyuv"}
    | {"phm", "ppm", "qoi", "roqvideo", "sunrast", "vbn", "wbmp", "xbm"}
    | {"xwd"}
)
# plain PyAV does not decode these files
NO_EXTRADATA_IN_WTV = ("ffv1", "ffvhuff", "huffyuv", "msrle", "utvideo", "wmv2", "zlib")
EXCLUDED = {
    **{(encoder, "wtv"): "the muxer does not store the codec's header" for encoder in NO_EXTRADATA_IN_WTV},
    ("mjpeg", "wtv"): "FFmpeg finds no end of its packets",
    ("h263p", "mpeg"): "taken for another format",
    ("h263p", "vob"): "taken for another format",
    ("msrle", "asf"): "the muxer stores no palette",
    ("msrle", "nut"): "the muxer does not store the number of bits per pixel",
    ("rawvideo", "mov"): "the muxer does not store the pixel format yuv420p",
}
SIZES = {"dvvideo": (720, 576), "h261": (176, 144), "h263": (176, 144), "xface": (48, 48), "dnxhd": (256, 128)}
OWN_OPTIONS = {"dnxhd": {"profile": "dnxhr_lb"}}


def software_encoders() -> list[str]:
    names = set[str]()
    for name in av.codec.codecs_available:
        with contextlib.suppress(UnknownCodecError):
            codec = Codec(name, "w")
            if codec.type == "video" and not codec.capabilities & (Capabilities.hardware | Capabilities.hybrid):
                names.add(codec.name)
    return sorted(names - EXCLUDED_ENCODERS.keys())


def test_every_extension_has_a_container() -> None:
    assert CONTAINERS.keys() | SAME_AS.keys() | NO_MUXER == video.VIDEO_EXTENSIONS


@pytest.mark.parametrize("encoder", software_encoders())
def test_a_codec_in_every_container(tmp_path: Path, encoder: str) -> None:
    width, height = SIZES.get(encoder, (64, 48))
    formats = Codec(encoder, "w").video_formats or []
    images, found = indexed_frames(COUNT, height, width), dict[str, list[str]]()
    unrecognised = set[str]()
    for suffix, (muxer, mux) in CONTAINERS.items():
        options = OWN_OPTIONS.get(encoder) or OPTIONS.get(encoder, LOSSY)
        clip = Clip(encoder, formats[0].name if formats else "yuv420p", options, mux=mux)
        path = tmp_path / f"a{suffix}"
        family = muxer.replace("vob", "mpeg")
        if (encoder, muxer) in EXCLUDED or family in unrecognised:
            continue
        try:
            clip.write(path, images, muxer)
        except (FFmpegError, ValueError):
            continue  # the container does not accept the codec
        try:
            plain = decode_plainly(path)
        except FFmpegError:
            if muxer not in TAKE_ANY_CODEC:
                raise
            unrecognised.add(family)
            continue
        if muxer in TAKE_ANY_CODEC and not plain.images:
            unrecognised.add(family)
            continue
        assert plain.numbers == list(range(COUNT)), suffix
        found[suffix] = differences(path, plain)
        path.unlink()
    assert bool(found) == (encoder not in IN_NO_CONTAINER)
    assert {suffix: texts for suffix, texts in found.items() if texts} == {}
