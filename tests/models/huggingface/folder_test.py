"""Folders as they come: sharded, stacked, adapted, damaged; written and read back to the bit."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding

from rlx import models
from rlx.errors import UserError
from rlx.models import huggingface
from rlx.models.axes import fit
from rlx.models.huggingface import files
from rlx.models.huggingface.folder import INDEX, WEIGHTS, read_tensors
from rlx.train.sharding import make_mesh
from tests.models.huggingface.tiny import RAW, write_config


def written(folder, name="gemma3", *, seed=0, **options):
    """A folder of this family with drawn numbers, the model and what was written."""
    write_config(folder / "given", RAW[name])
    config, raw = huggingface.config_of({"name": "hf", "path": str(folder / "given"), **options})
    model = huggingface.build(str(folder / "given"), **options)
    params = jax.tree.map(lambda x: (x + 0.1).astype(x.dtype), model.init(seed))
    huggingface.save(folder / "model", config, params, huggingface.describe(config, raw), shard_bytes=6000)
    return folder / "model", params


def load(folder, **options):
    return huggingface.build(str(folder), **options).pretrained(0)


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def change_header(file, change):
    """Rewrites the header of a file; the data stays."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    text = json.dumps(change(json.loads(data[8 : 8 + size]))).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scan", [False, True])
def test_what_is_written_is_read_to_the_bit(dtype, scan, tmp_path):
    folder, params = written(tmp_path, param_dtype=dtype, scan_layers=scan)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {dtype}
    assert len(list(folder.glob("model-*.safetensors"))) > 2 and not list(tmp_path.glob(".*"))
    same(load(folder, param_dtype=dtype, scan_layers=scan), params)
    listed = load(folder, param_dtype=dtype)
    again, raw = huggingface.config_of({"name": "hf", "path": str(folder), "param_dtype": dtype})
    huggingface.save(tmp_path / "again", again, listed, huggingface.describe(again, raw))
    first, second = read_tensors(folder), read_tensors(tmp_path / "again")
    assert first.keys() == second.keys()
    for name, entry in first.items():
        assert entry[...].tobytes() == second[name][...].tobytes()


def test_the_package_of_the_format_reads_the_files(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    folder, params = written(tmp_path, "llama")
    index = json.loads((folder / INDEX).read_text())
    name = "model.layers.1.self_attn.q_proj.weight"
    with safetensors.safe_open(str(folder / index["weight_map"][name]), "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        kernel = params["layers"]["1"]["attention"]["query"]["kernel"]
        np.testing.assert_array_equal(file.get_tensor(name).T, kernel)
    assert index["metadata"]["total_size"] == 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("scan", [False, True])
def test_devices_read_their_parts_alone(scan, tmp_path, monkeypatch):
    folder, params = written(tmp_path, "qwen2", scan_layers=scan)
    model = huggingface.build(str(folder), scan_layers=scan)
    mesh = make_mesh({"fsdp": 2, "model": 2})
    shapes = model.shapes()
    places = jax.tree.map(
        lambda leaf, spec: NamedSharding(mesh, fit(spec, leaf.shape, mesh.shape)), shapes, model.partition(shapes)
    )
    read, sizes = files.Entry.__getitem__, []
    monkeypatch.setattr(
        files.Entry, "__getitem__", lambda self, index: sizes.append(0) or _seen(sizes, read(self, index))
    )
    found = model.pretrained(0, places)
    same(found, params)
    kernel = found["layers"]["mlp"]["up"]["kernel"] if scan else found["layers"]["0"]["mlp"]["up"]["kernel"]
    assert {shard.data.shape[-2:] for shard in kernel.addressable_shards} == {(16, 12)}
    largest = max(entry.shape[0] * entry.shape[-1] for entry in read_tensors(folder).values() if len(entry.shape) > 1)
    assert max(sizes) < largest


def _seen(sizes, numbers):
    sizes[-1] = numbers.size
    return numbers


def test_a_head_and_adapters_that_files_lack_are_new(tmp_path):
    folder, params = written(tmp_path, "qwen3")
    found = load(folder, head="scalar", lora={"rank": 2})
    assert not np.asarray(found["head"]["linear"]["kernel"]).any()
    adapter = found["layers"]["1"]["attention"]["query"]["lora"]
    assert np.asarray(adapter["a"]).any() and not np.asarray(adapter["b"]).any()
    np.testing.assert_array_equal(found["embedding"], params["embedding"])
    with_head, saved = written(tmp_path / "head", "qwen3", head="scalar")
    same(load(with_head, head="scalar"), saved)
    same(load(with_head), {name: part for name, part in saved.items() if name != "head"})


def test_half_precision_files_fill_full_precision_parameters(tmp_path):
    folder, params = written(tmp_path, "llama", param_dtype="bfloat16")
    found = load(folder, param_dtype="float32")
    assert found["embedding"].dtype == np.float32
    same(found, jax.tree.map(lambda leaf: leaf.astype(np.float32), params))


def test_gemma_with_images_is_read_for_its_text(tmp_path):
    folder, params = written(tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": raw}
    (folder / "config.json").write_text(json.dumps(outer))
    tensors = read_tensors(folder)
    sources = [files.Source(f"language_model.{name}", x.shape, lambda x=x: x[...]) for name, x in tensors.items()]
    tower = files.Source("vision_tower.patch.weight", (2,), lambda: np.zeros(2))
    files.write(folder / WEIGHTS, [*sources, tower], "F32")
    (folder / INDEX).unlink()
    same(load(folder), params)


def _truncate(folder):
    file = sorted(folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-4])


def _header(change):
    return lambda folder: change_header(sorted(folder.glob("*.safetensors"))[0], change)


def _index(change):
    def damage(folder):
        index = json.loads((folder / INDEX).read_text())
        (folder / INDEX).write_text(json.dumps({"weight_map": change(index["weight_map"])}))

    return damage


def _first(change):
    """Changes the first tensor of a header."""

    def damage(header):
        name = next(name for name in header if name != "__metadata__")
        return {**header, name: {**header[name], **change(header[name])}}

    return _header(damage)


def _long(length):
    return lambda folder: sorted(folder.glob("*.safetensors"))[0].write_bytes(length.to_bytes(8, "little") + b"{}" * 40)


def _huge(folder):
    with sorted(folder.glob("*.safetensors"))[0].open("r+b") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(300_000_000)


def _pickle(folder):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def _gone(folder):
    sorted(folder.glob("*.safetensors"))[0].unlink()


def _twice(folder):
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    second.write_bytes(first.read_bytes())


DAMAGES = {
    "truncated": (_truncate, r"is truncated: the tensor .* ends at byte \d+ of \d+"),
    "header beyond the file": (_long(10_000), "is truncated, or no safetensors file: 88 bytes, a header of 10000"),
    "huge header": (_huge, "a header of 200000000 bytes is refused, at most 100000000"),
    "no json": (lambda f: _long(3)(f), "holds no JSON that can be read"),
    "wrong dtype": (_first(lambda e: {"dtype": "F8_E4M3"}), "is of type F8_E4M3; weights must be F64, F32, F16, BF16"),
    "integers": (_first(lambda e: {"dtype": "I32"}), "is of type I32; weights must be"),
    "sizes at odds": (_first(lambda e: {"dtype": "F64"}), r"bytes are no F64 tensor .* of shape"),
    "negative": (_first(lambda e: {"shape": [-1]}), "the header says nothing sensible of the tensor"),
    "boolean": (_first(lambda e: {"shape": True}), "the header says nothing sensible of the tensor"),
    "overlap": (_header(lambda h: {**h, "x": next(v for k, v in h.items() if k[0] == "m")}), "overlaps with another"),
    "no list": (_header(lambda h: []), "holds a JSON list, not an object"),
    "missing file": (_gone, r"names 'model-00001-of-.*', which is not in the folder: the download is not complete"),
    "outside": (_index(lambda m: dict.fromkeys(m, "../x.safetensors")), r"names '../x.safetensors': only plain"),
    "absolute": (_index(lambda m: dict.fromkeys(m, "/etc/passwd")), "names '/etc/passwd': only plain names"),
    "no map": (_index(lambda m: [1]), "has no weight_map from tensors to files"),
    "not there": (_index(lambda m: {**m, "model.extra": next(iter(m.values()))}), "holds 'model.extra', which it does"),
    "twice": (_twice, "is in two files, model-00001-of-"),
    "pickle": (_pickle, "has pytorch_model.bin, but pickles are never read, for they can run any code"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_weights_are_one_line(name, tmp_path):
    folder, _ = written(tmp_path, "llama")
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def _rename(old, new):
    def change(tensors):
        return {new if name == old else name: entry for name, entry in tensors.items()}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename("model.norm.weight", "model.nrm.weight"), "lacks 'model.norm.weight', .*mean 'model.nrm.weight'"),
        (lambda t: {**t, "model.layers.2.mlp.up_proj.weight": t["model.norm.weight"]}, "has 'model.layers.2.mlp.up_"),
        (lambda t: {**t, "model.norm.weight": t["model.embed_tokens.weight"]}, r"the shape \[17, 32\], but .*\[32\]"),
        (lambda t: {"lm_head.weight": t["lm_head.weight"]}, "and 17 more tensors, which its config.json asks for"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(change, message, tmp_path):
    folder, _ = written(tmp_path, "llama")
    tensors = change(read_tensors(folder))
    sources = [files.Source(name, entry.shape, lambda entry=entry: entry[...]) for name, entry in tensors.items()]
    (folder / INDEX).unlink()
    files.write(folder / WEIGHTS, sources, "F32")
    with pytest.raises(UserError, match=message):
        load(folder)


def test_nothing_is_overwritten_and_nothing_is_left_behind(tmp_path):
    folder, params = written(tmp_path, "llama")
    config, raw = huggingface.config_of({"name": "hf", "path": str(folder)})
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        huggingface.save(folder, config, params, raw)
    with pytest.raises(UserError, match="dtype='float33' is none of .* Did you mean 'float32'"):
        huggingface.save(tmp_path / "new", config, params, raw, dtype="float33")

    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="new cannot be written: No space left on device"):
        huggingface.save(tmp_path / "new", config, params, raw, finish=full)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "model"]


def test_numbers_outside_the_format_are_not_lost(tmp_path):
    values = np.array([1.0, -0.0, np.inf, 3e-39, np.nan]).astype(ml_dtypes.bfloat16)
    files.write(tmp_path / "x.safetensors", [files.Source("x", values.shape, lambda: values)], "BF16")
    assert files.read_header(tmp_path / "x.safetensors")["x"][:].tobytes() == values.tobytes()


def test_model_options_are_checked(tmp_path):
    with pytest.raises(UserError, match="model 'hf' needs model.path"):
        models.build({"name": "hf"})
    with pytest.raises(UserError, match="there is no folder .*gvien. Did you mean 'given'"):
        written(tmp_path, "llama")
        models.build({"name": "hf", "path": str(tmp_path / "gvien")})
    with pytest.raises(UserError, match=r"has no config\.json: name the folder of a Hugging Face model"):
        models.build({"name": "hf", "path": str(tmp_path)})
    with pytest.raises(UserError, match="model 'hf' has no option 'dtyp'. Did you mean 'dtype'"):
        models.build({"name": "hf", "path": str(tmp_path / "given"), "dtyp": "bfloat16"})
