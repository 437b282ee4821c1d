"""The student and its training data."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import indexed_frames, read_index, write_video
from vimoclip import clip, moclip, store, video
from vimoclip.errors import UserError
from vimoclip.flow import flow_lookup
from vimoclip.moclip import flow_pairing, loops, train_state
from vimoclip.moclip.dataset import Batch, SegmentDataset, collate, segments
from vimoclip.training.checkpoint import save_checkpoint

COMMENT = {"method": "dis", "checkpoint": None, "size": None, "normalization": "frame", "sampling": {"stride": 1}}


def write_flow(path: Path, frames: np.ndarray, kept: int, **settings: object) -> Path:
    indices = {"kept_frames": kept, "frame_indices": {"start": 0, "step": 1}}
    with video.Writer(path, 25, COMMENT | indices | settings, lossless=True) as writer:
        writer.write(frames)
    return path


def write_rgb(path: Path, lengths: dict[str, int], dim: int = 4, **attributes: object) -> store.Reader:
    """Row t of a video is t in every column, so that a row shows which frame it is."""
    root = {"kind": "rgb", "num_classes": 3, "sampling": {"stride": 1}} | attributes
    writer = store.Writer(path, root)
    for key, frames in lengths.items():
        part = writer.part(key)
        part.append(np.repeat(np.arange(frames, dtype=np.float32)[:, None], dim, 1))
        part.finish(np.arange(frames), np.arange(frames) / 25, frames, 25, np.array([1, 0, 0]))
    writer.finish(lengths)
    return store.Reader(path, "rgb")


@settings(max_examples=200)
@given(frames=st.lists(st.integers(2, 200), min_size=1, max_size=5), length=st.integers(2, 40))
def test_each_flow_of_a_video_is_in_exactly_one_segment(frames: list[int], length: int) -> None:
    clips = [flow_pairing.Clip(f"{i}.mp4", Path(f"{i}.mp4"), n) for i, n in enumerate(frames)]
    seen = [
        (segment.clip.key, t)
        for segment in segments(clips, length)
        for t in range(segment.start, segment.start + segment.length)
    ]
    assert sorted(seen) == sorted((c.key, t) for c in clips for t in range(c.frames - 1))
    assert all(1 <= segment.length <= length - 1 for segment in segments(clips, length))


def test_a_flow_frame_comes_with_the_rgb_row_of_the_same_index_and_padding_is_marked(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(24), kept=25)
    reader = write_rgb(tmp_path / "rgb.h5", {"a.mp4": 25})
    pairing = flow_pairing.pair(reader, flow_lookup.FlowFolder(tmp_path / "flows"))
    dataset = SegmentDataset(reader, pairing.clips, 11, lambda frames: torch.from_numpy(frames).permute(0, 3, 1, 2))
    batch = collate([dataset[i] for i in range(len(dataset))])
    assert batch.flow.shape == (3, 10, 3, 48, 64)
    assert batch.mask.sum(1).tolist() == [10, 10, 4]
    for i, start in enumerate((0, 10, 20)):
        for t in range(int(batch.mask[i].sum())):
            shown = read_index(batch.flow[i, t].permute(1, 2, 0).numpy())
            assert shown == start + t == int(batch.z_image[i, t, 0])
    assert not batch.flow[2, 4:].any()


def test_videos_that_do_not_fit_are_left_out_by_name_and_reason(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    write_flow(flows / "good.mp4", indexed_frames(9), kept=10)
    write_flow(flows / "short.mp4", indexed_frames(7), kept=8)
    write_flow(flows / "other.mp4", indexed_frames(9), kept=10, frame_indices={"start": 5, "step": 1})
    (flows / "broken.mp4").write_bytes(b"not a video")
    lengths = dict.fromkeys(("good.mp4", "short.mp4", "other.mp4", "broken.mp4", "absent.mp4"), 10) | {"still.mp4": 1}
    pairing = flow_pairing.pair(write_rgb(tmp_path / "rgb.h5", lengths), flow_lookup.FlowFolder(flows))
    assert [c.key for c in pairing.clips] == ["good.mp4"]
    assert "10 RGB frames but 7 flow frames" in pairing.left_out["short.mp4"]
    assert "other frames" in pairing.left_out["other.mp4"]
    assert "is not a video" in pairing.left_out["broken.mp4"]
    assert "has no flow video" in pairing.left_out["absent.mp4"]
    assert "one frame" in pairing.left_out["still.mp4"]


def test_flow_and_embeddings_of_two_samplings_are_refused_naming_both(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(9), kept=10)
    reader = write_rgb(tmp_path / "rgb.h5", {"a.mp4": 10}, sampling={"stride": 2})
    with pytest.raises(UserError, match=r"sampling is .*2.* in .*rgb.h5 but .*1.* in .*a.mp4"):
        flow_pairing.pair(reader, flow_lookup.FlowFolder(tmp_path / "flows"))


def test_flow_made_in_two_ways_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    write_flow(tmp_path / "flows" / "a.mp4", indexed_frames(9), kept=10)
    write_flow(tmp_path / "flows" / "b.mp4", indexed_frames(9), kept=10, method="raft")
    with pytest.raises(UserError, match="method is dis"):
        flow_pairing.pair(
            write_rgb(tmp_path / "rgb.h5", {"a.mp4": 10, "b.mp4": 10}), flow_lookup.FlowFolder(tmp_path / "flows")
        )


def test_ids_with_underscores_do_not_share_their_flow(tmp_path: Path) -> None:
    for name in ("cow_raft_things.mp4", "cow_left_1_raft_things.mp4", "sow_left_1.mp4"):
        write_video(tmp_path / name, indexed_frames(2))
    folder = flow_lookup.FlowFolder(tmp_path, ["cow.mp4", "cow_left_1.mp4", "sow.mp4", "sow_left_1.mp4"])
    found = {name: folder.find(f"{name}.mp4") for name in ("cow", "cow_left", "cow_left_1", "sow", "sow_left_1")}
    assert {name: path.name if path else None for name, path in found.items()} == {
        "cow": "cow_raft_things.mp4",
        "cow_left": None,
        "cow_left_1": "cow_left_1_raft_things.mp4",
        "sow": None,
        "sow_left_1": "sow_left_1.mp4",
    }
    assert set(folder.by_stem()) == {"cow", "cow_left_1", "sow_left_1"}


def test_every_name_that_the_published_script_can_give_is_understood() -> None:
    import ptlflow

    names = [
        (model, checkpoint)
        for model in ptlflow.get_model_names()
        for checkpoint in getattr(ptlflow.get_model_reference(model), "pretrained_checkpoints", None) or ["things"]
    ]
    wrong = [
        (stem, *name)
        for stem in ("AAACXZTV", "my_cat_1", "-x_y")
        for name in names
        if flow_lookup._published_stems(f"{stem}_{name[0]}_{name[1]}") != [stem]
    ]
    assert not wrong


def test_flow_videos_are_found_under_either_name_and_two_are_an_error(tmp_path: Path) -> None:
    for name in ("own.mp4", "theirs_raft_things.mp4", "my_cat_raft_small_things.mp4", "same.mp4"):
        write_video(tmp_path / name, indexed_frames(2))
    folder = flow_lookup.FlowFolder(tmp_path)
    found = {v: folder.find(v) for v in ("own.avi", "theirs.mp4", "my_cat.mp4", "same.mp4", "none.mp4")}
    assert {v: path.name if path else None for v, path in found.items()} == {
        "own.avi": "own.mp4",
        "theirs.mp4": "theirs_raft_things.mp4",
        "my_cat.mp4": "my_cat_raft_small_things.mp4",
        "same.mp4": "same.mp4",
        "none.mp4": None,
    }
    assert set(folder.by_stem()) == {"own", "theirs", "my_cat", "same"}
    write_video(tmp_path / "theirs_raft_sintel.mp4", indexed_frames(2))
    with pytest.raises(UserError, match=r"theirs_raft_sintel.mp4, theirs_raft_things.mp4 may all be the flow"):
        flow_lookup.FlowFolder(tmp_path).find("theirs.mp4")


def test_the_flow_of_another_video_is_not_taken_for_a_published_name(tmp_path: Path) -> None:
    write_flow(tmp_path / "cat_dis_things.mp4", indexed_frames(2), kept=3, video="cat_dis_things")
    folder = flow_lookup.FlowFolder(tmp_path)
    assert folder.find("cat.mp4") is None
    assert set(folder.by_stem()) == {"cat_dis_things"}


def make_student(encoder: clip.ImageEncoder, num_classes: int = 3) -> tuple[moclip.MoCLIP, dict]:
    dim = encoder.config["embed_dim"]
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": num_classes, "teacher": {}, "flow": {}}
    return moclip.MoCLIP(encoder.visual, dim, num_classes, 0.1), config


def embed(visual: torch.nn.Module, config: dict) -> torch.Tensor:
    encoder = clip.ImageEncoder(visual.eval(), config["clip"])
    return encoder.encode(encoder.preprocess(indexed_frames(3, 60, 80)))


def test_keys_are_the_published_ones_and_the_student_starts_as_the_teacher(tiny_clip: str) -> None:
    encoder = clip.load(tiny_clip, None)
    model, _ = make_student(encoder)
    keys = set(model.state_dict())
    own = {f"visual_encoder.{name}" for name in encoder.visual.state_dict()}
    rest = {"residual_mlp.fc1", "residual_mlp.fc2", "classification_head.0", "classification_head.2"}
    assert keys == own | {f"{name}.{kind}" for name in rest for kind in ("weight", "bias")}
    prepared = encoder.preprocess(indexed_frames(4))
    output = model.eval()(encoder.preprocess.normalize(prepared)[None], torch.ones(1, 4, dtype=torch.bool))
    assert torch.allclose(output.z_motion[0], encoder.encode(prepared), atol=1e-6)
    assert torch.equal(output.predicted, output.z_motion)  # the MLP's second layer starts at zero


def test_padding_changes_no_output(tiny_clip: str) -> None:
    encoder = clip.load(tiny_clip, None)
    model, _ = make_student(encoder)
    torch.nn.init.normal_(model.residual_mlp.fc2.weight)
    images = torch.randn(1, 6, 3, 32, 32)
    mask = torch.arange(6)[None] < 4
    padded, alone = model(images, mask), model(images[:, :4], mask[:, :4])
    assert torch.allclose(padded.logits, alone.logits, atol=1e-6)
    assert torch.allclose(padded.predicted[:, :4], alone.predicted, atol=1e-6)
    assert not padded.predicted[:, 4:].any()


def test_saving_and_loading_a_student_changes_no_bit(tiny_clip: str, tmp_path: Path) -> None:
    model, config = make_student(clip.load(tiny_clip, None))
    before = embed(model.visual_encoder, config)
    save_checkpoint(tmp_path / "student_best.pth", {"state_dict": model.state_dict(), "config": config})
    loaded, again = moclip.load(moclip.find_checkpoint(tmp_path))
    assert torch.equal(embed(loaded.visual_encoder, again), before)


def test_a_student_of_openai_weights_in_a_file_keeps_quick_gelu_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(2)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), tmp_path / "weights.pt")
    encoder = clip.load("ViT-B/32", str(tmp_path / "weights.pt"))
    model, config = make_student(encoder, num_classes=140)
    before = embed(model.visual_encoder, config)
    ours = save_checkpoint(tmp_path / "ours.pth", {"state_dict": model.state_dict(), "config": config})
    loaded, again = moclip.load(ours)
    assert torch.equal(embed(loaded.visual_encoder, again), before)
    # a published checkpoint is the plain state dict, from DataParallel; it lies in "<run> - best"
    (tmp_path / "20250328-003544 - best").mkdir()
    plain = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(plain, tmp_path / "20250328-003544 - best" / "student_epoch_7.pth")
    found = moclip.find_checkpoint(tmp_path / "20250328-003544")
    loaded, again = moclip.load(found, "ViT-B/32", 140)
    assert torch.equal(embed(loaded.visual_encoder, again), before)


def test_what_is_no_student_or_another_is_refused(tiny_clip: str, tmp_path: Path) -> None:
    model, config = make_student(clip.load(tiny_clip, None))
    good = save_checkpoint(tmp_path / "good.pth", {"state_dict": model.state_dict(), "config": config})
    with pytest.raises(UserError, match="--num-classes 140"):
        moclip.load(good, num_classes=140)
    with pytest.raises(UserError, match=r"--clip-model-name ViT-B/16: .*was trained from local-dir:tinyclip"):
        moclip.load(good, clip_model_name="ViT-B/16")
    other = save_checkpoint(tmp_path / "other.pth", {"state_dict": {"weight": torch.zeros(2)}})
    with pytest.raises(UserError, match="no MoCLIP student"):
        moclip.load(other)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match=r"text.pth: can't be loaded"):
        moclip.load(tmp_path / "text.pth")
    with pytest.raises(UserError, match="holds no student"):
        moclip.find_checkpoint(tmp_path / "nowhere")


class Brightness(torch.nn.Module):
    """An image tower with a running mean, whose embedding is the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(images).mean((2, 3)))


def a_batch(lengths: list[int], keys: list[str]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    flow = torch.randint(0, 256, (len(lengths), 5, 3, 8, 8), generator=generator, dtype=torch.uint8)
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    z_image = torch.randn(len(lengths), 5, 4, generator=generator)
    return Batch(flow, z_image, mask, torch.eye(2)[torch.arange(len(keys)) % 2], keys, [])


IDENTITY: dict = {"image_size": [8, 8], "resize": "model", "resize_mode": "squash", "interpolation": "bicubic"}
IDENTITY |= {"fill_color": 0, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def train_an_epoch(model: moclip.MoCLIP, batches: list[Batch], compute: loops.Losses) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = train_state.TrainState(model, {}, optimizer, scheduler, scaler, train_state.new_progress())
    loops.train_one_epoch(state, batches, compute, clip.Preprocess(IDENTITY), nullcontext, sums=train_state.Sums())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_changes_in_no_way_and_another_does(frozen: bool) -> None:
    torch.manual_seed(0)
    model = moclip.MoCLIP(Brightness(), 4, 2, 0.1)
    model.visual_encoder.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_an_epoch(model, [a_batch([5, 3], ["a", "b"])] * 2, loops.make_losses("cosine", 9))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("visual_encoder") for name in changed) != frozen
    assert any(name.startswith("classification_head") for name in changed)


@pytest.mark.parametrize(("weight", "matters"), [(0.0, False), (0.1, True)])
def test_the_teacher_teaches_only_where_distillation_has_a_weight(weight: float, matters: bool) -> None:
    learned = []
    for sign in (1, -1):
        torch.manual_seed(0)
        model = moclip.MoCLIP(Brightness(), 4, 2, 0.1)
        batch = a_batch([5, 3], ["a", "b"])
        batch = batch._replace(z_image=sign * batch.z_image)
        train_an_epoch(model, [batch] * 2, loops.make_losses("cosine", 9, weight))
        learned.append(model.state_dict())
    assert any(not torch.equal(learned[0][name], learned[1][name]) for name in learned[0]) == matters


def test_a_videos_score_is_the_mean_over_its_segments_by_their_length() -> None:
    torch.manual_seed(0)
    model = moclip.MoCLIP(Brightness().eval(), 4, 2, 0.1).eval()
    batch, preprocess = a_batch([5, 2, 4], ["long", "long", "short"]), clip.Preprocess(IDENTITY)
    compute = loops.make_losses("mse", 9)
    means, probabilities = loops.evaluate(model, [batch], compute, preprocess, nullcontext)
    alone = model(preprocess.normalize(batch.flow), batch.mask).logits.sigmoid()
    assert torch.allclose(probabilities["long"], (5 * alone[0] + 2 * alone[1]) / 7)
    assert torch.allclose(probabilities["short"], alone[2])
    assert means["loss"] == pytest.approx(means["distillation_loss"] + means["classification_loss"], rel=1e-5)
