"""The weights are the ones that were asked for, wherever they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
from typing import TYPE_CHECKING, Any

import h5py
import keras
import numpy as np
import pytest
from paths import ROOT, WEIGHTS

from job import storage
from job.config.settings import ModelSettings
from job.errors import DataError, SettingsError, UnavailableError
from job.model import backbones, weights
from job.model.backbones import file_name
from job.observability.progress import Event, Listener, Progress

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from job.storage import Store

NAME = file_name("MobileNetV2", 0.35, 32)

Arrays = dict[str, np.ndarray[Any, Any]]


class Heard(Listener):
    """Remembers the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        """Remember it."""
        self.events.append(event)

    def names(self) -> list[str]:
        """Return the events' names."""
        return [event.name for event in self.events]


@pytest.fixture(scope="module")
def fetch_weights() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("fetch_weights", ROOT / "scripts" / "fetch_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base_model() -> keras.Model:
    """Return a small backbone; every test sets its variables anew."""
    return keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)


@pytest.fixture(scope="module")
def wider_model() -> keras.Model:
    """Return a backbone of another width."""
    return keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.5, include_top=False, weights=None)


@pytest.fixture(scope="module")
def arrays(base_model: keras.Model) -> Arrays:
    """Return other values for each of its variables."""
    random = np.random.default_rng(0)
    return {
        f"{layer.name}/{variable.name}": random.normal(size=variable.shape).astype(np.float32)
        for layer in base_model.layers
        for variable in layer.weights
    }


@pytest.fixture(scope="module")
def file(fetch_weights: ModuleType, arrays: Arrays) -> bytes:
    """Return these values as a file like those that Keras publishes."""
    data: bytes = fetch_weights.encode(arrays)
    return data


@pytest.fixture
def heard() -> Heard:
    """Return what hears the events of `load`."""
    return Heard()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of Keras's cache, which is not there yet; nothing can be downloaded."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weights, "URL", "http://127.0.0.1:1/")
    return tmp_path / "keras" / "models"


@pytest.fixture
def address(home: Path, emulator: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return what lies at Keras's address, which is a bucket; there is nothing yet, nor in Keras's cache."""
    assert not home.exists()
    monkeypatch.setattr(weights, "URL", f"{emulator}/{bucket}/")
    return storage.open_store(f"gs://{bucket}/mobilenet_v2")


@pytest.fixture
def known(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the digest of the arrays, which now counts as that of ImageNet."""
    digest = weights.digest(arrays)
    monkeypatch.setitem(weights.KNOWN_DIGESTS, ("MobileNetV2", 0.35, 224), digest)
    return digest


def load(base_model: keras.Model, heard: Heard, **settings: Any) -> weights.Provenance:
    """Load into the small backbone; no folder is baked in unless one is named."""
    settings = {"alpha": 0.35, "image_size": 32, "weights_dir": "/nonexistent"} | settings
    return weights.load_into(base_model, ModelSettings(**settings), storage.open_store, Progress([heard]))


def assert_holds(base_model: keras.Model, arrays: Arrays) -> None:
    """Every variable of the model has its value."""
    for layer in base_model.layers:
        for variable in layer.weights:
            np.testing.assert_array_equal(np.asarray(variable), arrays[f"{layer.name}/{variable.name}"])


def put(folder: Path, data: bytes, name: str = NAME) -> Path:
    """Write a file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


# The digest


def test_digest_is_of_the_values() -> None:
    """Neither the order nor the precision in memory changes the digest; a name, a shape or one bit of a value does."""
    one, two = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)
    digest = weights.digest({"a/one": one, "b/two": two})

    assert digest == weights.digest({"b/two": two.astype(np.float64), "a/one": np.asfortranarray(one)})
    assert digest != weights.digest({"a/one": one, "b/too": two})
    assert digest != weights.digest({"a/one": one.reshape(3, 2), "b/two": two})
    assert digest != weights.digest({"a/one": one, "b/two": np.nextafter(two, 2)})


@pytest.mark.needs_shared
@pytest.mark.parametrize("alpha", [1.0, 0.35])
def test_known_digests(alpha: float) -> None:
    """The known digests are those of the real files, read by their own names without Keras."""
    found: Arrays = {}

    def visit(path: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            found["/".join(path.split("/")[-2:])] = node[()]

    with h5py.File(WEIGHTS / file_name("MobileNetV2", alpha, 224)) as opened:
        opened.visititems(visit)

    assert weights.KNOWN_DIGESTS["MobileNetV2", alpha, 224] == weights.digest(found)


# imagenet


@pytest.mark.parametrize(
    ("alpha", "image_size", "expected"),
    [(1, 224, "1.0_224"), (1.0, 160, "1.0_160"), (0.5, 96, "0.5_96"), (0.35, 144, "0.35_224"), (1.4, 448, "1.4_224")],
)
def test_file_name_is_that_of_keras(alpha: float, image_size: int, expected: str) -> None:
    """Sizes that Keras has no weights for start from those of 224, as in keras.applications.mobilenet_v2."""
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{expected}_no_top.h5"
    assert name == file_name("MobileNetV2", alpha, image_size)


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.needs_shared
def test_real_weights_are_verified(base_model: keras.Model, heard: Heard) -> None:
    """The real file in the folder baked into the image is loaded and verified."""
    found = load(base_model, heard, weights_dir=str(WEIGHTS))

    digest = weights.KNOWN_DIGESTS["MobileNetV2", 0.35, 224]
    assert weights.Provenance(str(WEIGHTS / NAME), digest, verified=True) == found
    assert ["weights.loaded"] == heard.names()


@pytest.mark.slow
def test_chain(
    base_model: keras.Model, arrays: Arrays, file: bytes, known: str, home: Path, tmp_path: Path, heard: Heard
) -> None:
    """The baked file comes before Keras's cache, and the cache before the network."""
    cached = put(home, file)
    assert str(cached) == load(base_model, heard, weights_dir=str(tmp_path / "baked")).source

    baked = put(tmp_path / "baked", file)
    found = load(base_model, heard, weights_dir=str(tmp_path / "baked"))

    assert weights.Provenance(str(baked), known, verified=True) == found
    assert_holds(base_model, arrays)


@pytest.mark.usefixtures("known")
def test_download_is_cached(
    base_model: keras.Model,
    arrays: Arrays,
    file: bytes,
    home: Path,
    address: Store,
    heard: Heard,
) -> None:
    """What is nowhere on the machine is downloaded from Keras's address, verified, and then in Keras's cache."""
    address.write(NAME, file)

    found = load(base_model, heard)

    assert (weights.url("MobileNetV2", 0.35, 32), True) == (found.source, found.verified)
    assert_holds(base_model, arrays)
    assert [NAME] == [path.name for path in home.iterdir()]
    assert file == (home / NAME).read_bytes()


def locate(**settings: Any) -> str:
    """Return where weights would be loaded from."""
    settings = {"alpha": 0.35, "image_size": 32, "weights_dir": "/nonexistent"} | settings
    return weights.locate(ModelSettings(**settings), storage.open_store, timeout=5, tries=1)


def test_locate(home: Path, address: Store, file: bytes, tmp_path: Path) -> None:
    """What would be loaded is found in its order, and neither loaded nor downloaded."""
    address.write(NAME, file)
    assert weights.url("MobileNetV2", 0.35, 32) == locate()
    assert not home.exists()
    cached = put(home, file)
    assert str(cached) == locate()
    baked = put(tmp_path / "baked", file)
    assert str(baked) == locate(weights_dir=str(tmp_path / "baked"))
    assert (str(baked), "random") == (locate(weights=str(baked)), locate(weights="none"))
    assert f"{address.uri}/{NAME}" == locate(weights=f"{address.uri}/{NAME}")


@pytest.mark.usefixtures("home")
def test_locate_finds_nothing(tmp_path: Path) -> None:
    """Weights that are not there, are no weights or cannot be downloaded have the error of a run."""
    with pytest.raises(UnavailableError, match=NAME):
        locate()
    with pytest.raises(DataError, match="there is no such file"):
        locate(weights=str(tmp_path / "w.h5"))
    with pytest.raises(SettingsError, match=r"\.h5"):
        locate(weights=str(tmp_path / "w.keras"))
    put(tmp_path, b"no weights")
    with pytest.raises(DataError, match="is no weights file"):
        locate(weights_dir=str(tmp_path))


@pytest.mark.usefixtures("known")
def test_damaged_download_is_not_kept(
    base_model: keras.Model,
    arrays: Arrays,
    fetch_weights: ModuleType,
    home: Path,
    address: Store,
    heard: Heard,
) -> None:
    """A download with other values is refused and does not get into the cache."""
    address.write(NAME, fetch_weights.encode(arrays | {"Conv_1_bn/beta": np.ones(1280)}))

    with pytest.raises(DataError, match="digest"):
        load(base_model, heard)

    assert not home.exists()


@pytest.mark.usefixtures("known")
def test_download_needs_no_cache(
    base_model: keras.Model,
    arrays: Arrays,
    file: bytes,
    home: Path,
    address: Store,
    heard: Heard,
) -> None:
    """Where the cache cannot be written the downloaded weights are used all the same, with a warning."""
    address.write(NAME, file)
    home.parent.write_text("a file where the folder should be")

    load(base_model, heard)

    assert_holds(base_model, arrays)
    assert [("weights.not_cached", "warning")] == [(e.name, e.severity) for e in heard.events if e.severity != "info"]


def test_unreachable(base_model: keras.Model, home: Path, heard: Heard) -> None:
    """Without a network the message names the file and each folder that it was looked for in."""
    with pytest.raises(UnavailableError) as caught:
        load(base_model, heard)

    for place in (f"/nonexistent/{NAME}", str(home / NAME), weights.url("MobileNetV2", 0.35, 32), "3 attempts"):
        assert place in caught.value.message


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_other_values(
    base_model: keras.Model,
    arrays: Arrays,
    fetch_weights: ModuleType,
    known: str,
    tmp_path: Path,
    heard: Heard,
) -> None:
    """A file with one other value is refused, naming the file and both digests, and never replaced in silence."""
    changed = arrays | {"bn_Conv1/gamma": arrays["bn_Conv1/gamma"] + 1}
    path = put(tmp_path, fetch_weights.encode(changed))

    with pytest.raises(DataError) as caught:
        load(base_model, heard, weights_dir=str(tmp_path))

    for text in (str(path), known, weights.digest(changed)):
        assert text in caught.value.message


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("keep", [0, 0.5, 0.99], ids=["empty", "half", "nearly whole"])
def test_truncated_file(base_model: keras.Model, file: bytes, tmp_path: Path, heard: Heard, keep: float) -> None:
    """A file that ends too early is refused by its name."""
    path = put(tmp_path, file[: int(len(file) * keep)])

    with pytest.raises(DataError) as caught:
        load(base_model, heard, weights_dir=str(tmp_path))

    assert str(path) in caught.value.message


@pytest.mark.usefixtures("home")
def test_unknown_digest_is_told(
    base_model: keras.Model, arrays: Arrays, file: bytes, tmp_path: Path, heard: Heard
) -> None:
    """Weights of a size whose digest nobody knows are loaded, their digest is recorded, and the log says so."""
    put(tmp_path, file, file_name("MobileNetV2", 0.35, 96))

    found = load(base_model, heard, image_size=96, weights_dir=str(tmp_path))

    assert (weights.digest(arrays), False) == (found.digest, found.verified)
    assert ["weights.loaded", "weights.not_verified"] == heard.names()


# none


def test_none_is_a_warning(base_model: keras.Model, heard: Heard) -> None:
    """Random weights stay as they are, and are never silent."""
    before = [np.asarray(variable).copy() for variable in base_model.variables]

    found = load(base_model, heard, weights="none")

    assert ("random", False) == (found.source, found.verified)
    assert ["warning"] == [event.severity for event in heard.events]
    for expected, variable in zip(before, base_model.variables, strict=True):
        np.testing.assert_array_equal(expected, np.asarray(variable))


# A file of one's own


def test_path(base_model: keras.Model, arrays: Arrays, file: bytes, tmp_path: Path, heard: Heard) -> None:
    """A published weights file can be named by its path."""
    path = put(tmp_path, file, "mine.h5")

    found = load(base_model, heard, weights=str(path))

    assert weights.Provenance(str(path), weights.digest(arrays), verified=False) == found
    assert_holds(base_model, arrays)


def test_bucket(base_model: keras.Model, arrays: Arrays, file: bytes, bucket: str, heard: Heard) -> None:
    """A weights file in a bucket can be named by its URI; ImageNet's are recognised wherever they lie."""
    storage.open_store(f"gs://{bucket}").write("some/mine.h5", file)

    assert f"gs://{bucket}/some/mine.h5" == load(base_model, heard, weights=f"gs://{bucket}/some/mine.h5").source
    assert_holds(base_model, arrays)


@pytest.mark.slow
def test_keras_3_file(base_model: keras.Model, arrays: Arrays, tmp_path: Path, heard: Heard) -> None:
    """What Keras 3 saves as weights is loaded."""
    for layer in base_model.layers:
        for variable in layer.weights:
            variable.assign(arrays[f"{layer.name}/{variable.name}"])
    base_model.save_weights(path := tmp_path / "mine.weights.h5")

    load(base_model, heard, weights=str(path))  # note: it overwrites every variable before it reads the file

    assert_holds(base_model, arrays)


def test_whole_keras_2_model(
    base_model: keras.Model, arrays: Arrays, file: bytes, tmp_path: Path, heard: Heard
) -> None:
    """Of a whole model in a .h5 file the weights are taken; names as of old Keras do not matter."""
    with h5py.File(tmp_path / "model.h5", "w") as model, h5py.File(io.BytesIO(file)) as published:
        group = model.create_group("model_weights")
        layers = published.attrs["layer_names"].tolist()
        group.attrs["layer_names0"] = [f"old_{name}" for name in layers[:50]]
        group.attrs["layer_names1"] = [f"old_{name}" for name in layers[50:]]
        for name in layers:
            published.copy(published[name], group, name=f"old_{name}")

    load(base_model, heard, weights=str(tmp_path / "model.h5"))

    assert_holds(base_model, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("keras_3", [False, True])
def test_other_width(
    base_model: keras.Model,
    wider_model: keras.Model,
    fetch_weights: ModuleType,
    tmp_path: Path,
    heard: Heard,
    *,
    keras_3: bool,
) -> None:
    """Weights of another width are refused with the setting that they need."""
    path = tmp_path / "other.weights.h5"
    if keras_3:
        wider_model.save_weights(path)
    else:
        values = {f"{layer.name}/{v.name}": np.asarray(v) for layer in wider_model.layers for v in layer.weights}
        path.write_bytes(fetch_weights.encode(values))

    with pytest.raises(DataError) as caught:
        load(base_model, heard, weights=str(path))

    assert str(path) in caught.value.message
    assert "model.alpha" in caught.value.remedy


def test_other_network(base_model: keras.Model, file: bytes, tmp_path: Path, heard: Heard) -> None:
    """Weights with other layers are refused: no variable stays random unnoticed."""
    path = put(tmp_path, file)
    with h5py.File(path, "a") as opened:
        opened.attrs["layer_names"] = opened.attrs["layer_names"][:-1]

    with pytest.raises(DataError, match="no weights of this model"):
        load(base_model, heard, weights=str(path))


def test_no_file(base_model: keras.Model, tmp_path: Path, heard: Heard) -> None:
    """A path to nothing is an error of the data."""
    with pytest.raises(DataError, match="no such file"):
        load(base_model, heard, weights=str(tmp_path / "nothing.h5"))


@pytest.mark.parametrize("name", ["model.keras", "saved_model", "weights.pkl"])
def test_models_that_may_hold_code(base_model: keras.Model, tmp_path: Path, heard: Heard, name: str) -> None:
    """What could run code when it is loaded is not opened."""
    path = tmp_path / name
    path.write_bytes(b"")

    with pytest.raises(SettingsError, match=r"expected imagenet, none, or a file that ends in \.h5"):
        load(base_model, heard, weights=str(path))


# scripts/fetch_weights.py


def test_names_of_the_script(base_model: keras.Model, fetch_weights: ModuleType) -> None:
    """The script calls the arrays as Keras does, in the order of the layers."""
    names = [f"{layer.name}/{variable.name}" for layer in base_model.layers for variable in layer.weights]
    assert names == list(fetch_weights.scopes())


@pytest.mark.slow
def test_keras_loads_what_the_script_writes(arrays: Arrays, file: bytes, tmp_path: Path) -> None:
    """keras.applications loads the file by its path, and the same arrays are the same bytes."""
    path = put(tmp_path, file)
    model = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=path)
    assert_holds(model, arrays)


def test_script_keeps_a_verified_file(
    fetch_weights: ModuleType, arrays: Arrays, file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is right is not fetched again."""
    monkeypatch.setattr(fetch_weights, "DIGEST", weights.digest(arrays))
    path = put(tmp_path, file)
    before = path.stat().st_mtime_ns

    fetch_weights.fetch(path, Progress())

    assert before == path.stat().st_mtime_ns


def test_script_replaces_a_damaged_file(
    fetch_weights: ModuleType,
    arrays: Arrays,
    file: bytes,
    tmp_path: Path,
    address: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file that is not right is fetched anew, from Keras's address where that can be reached."""
    monkeypatch.setattr(fetch_weights, "DIGEST", weights.digest(arrays))
    address.write(fetch_weights.NAME, file)
    path = put(tmp_path, file[:1000])

    fetch_weights.fetch(path, Progress())

    assert file == path.read_bytes()


@pytest.mark.parametrize(
    ("run", "is_new"),
    [
        (None, True),
        ({"head": "new: its hidden layer has another size"}, True),
        ({"head": "taken over"}, False),
        ({"head": "taken over by label"}, False),
    ],
)
def test_new_head(run: dict[str, object] | None, is_new: bool) -> None:
    """A head is new unless a warm start took it over, or a part of it."""
    assert is_new == weights.Provenance("there", "d1", verified=False, run=run).has_new_head


@pytest.fixture(scope="module")
def other_backbone() -> keras.Model:
    """Return a small backbone of which Keras publishes checksums."""
    return backbones.create("MobileNetV3Small", alpha=1.0, image_size=32)


@pytest.mark.slow
def test_other_backbones_are_verified_by_the_checksum_of_the_file(
    other_backbone: keras.Model, tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with Keras's checksum is loaded and verified; any other one is refused, naming both checksums."""
    name = file_name("MobileNetV3Small", 1.0, 224)
    path = tmp_path / name
    other_backbone.save_weights(tmp_path / "new.weights.h5")
    (tmp_path / "new.weights.h5").rename(path)
    expected = weights.checksum(path.read_bytes(), like="0" * 32)
    settings = {"backbone": "MobileNetV3Small", "alpha": 1.0, "weights_dir": str(tmp_path)}

    with pytest.raises(DataError, match=expected) as caught:
        load(other_backbone, heard, **settings)
    assert backbones.BACKBONES["MobileNetV3Small"].checksums[1.0] in caught.value.message

    known = dataclasses.replace(backbones.BACKBONES["MobileNetV3Small"], checksums={1.0: expected})
    monkeypatch.setattr(weights, "BACKBONES", {**backbones.BACKBONES, "MobileNetV3Small": known})
    found = load(other_backbone, heard, **settings)
    assert (str(path), True) == (found.source, found.verified)


@pytest.mark.parametrize(("algorithm", "length"), [("md5", 32), ("sha256", 64)])
def test_checksum(algorithm: str, length: int) -> None:
    """Keras publishes MD5 for most files, and SHA-256 for some: the length says which."""
    assert hashlib.new(algorithm, b"data").hexdigest() == weights.checksum(b"data", like="0" * length)


def test_fetch_published(fetch_weights: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script writes a file of another backbone only with Keras's checksum, and downloads it once."""
    checksum = weights.checksum(b"file", like="0" * 32)
    known = dataclasses.replace(backbones.BACKBONES["ResNet50"], checksums={1.0: checksum})
    monkeypatch.setattr(backbones, "BACKBONES", {**backbones.BACKBONES, "ResNet50": known})
    answers = [b"file", b"other"]
    monkeypatch.setattr(weights, "download", lambda *_, **__: answers.pop(0))

    for _ in range(2):  # the second time, the file is there
        fetch_weights.fetch_published("ResNet50", 1.0, tmp_path, Progress())
    assert b"file" == (tmp_path / file_name("ResNet50", 1.0, 224)).read_bytes()
    with pytest.raises(DataError, match=checksum):
        fetch_weights.fetch_published("ResNet50", 1.0, tmp_path / "elsewhere", Progress())
