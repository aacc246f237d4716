"""Images arrive as torchvision, scikit-learn and Pillow read them, normalised by train; damaged files are named."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.transforms.v2.functional import normalize

from dl_course.data import CIFAR10, MNIST, Augment, Digits, FashionMNIST, ImageFolder
from dl_course.errors import ConfigError

# Digits and normalisation


def test_digits_are_scikit_learn_s_in_the_unit_interval():
    data = Digits()
    x = torch.cat([data.raw(name).x for name in data.splits])
    y = torch.cat([data.raw(name).y for name in data.splits])
    reference = load_digits()
    ours = sorted([*image, label] for image, label in zip((x * 16).flatten(1).tolist(), y.tolist()))
    theirs = sorted([*image, float(label)] for image, label in zip(reference.data.tolist(), reference.target))  # type: ignore[attr-defined]
    assert ours == theirs
    assert (data.shape, data.num_features, data.num_classes, data.num_outputs) == ((1, 8, 8), 64, 10, 10)
    assert [len(data.raw(name).x) for name in data.splits] == [1079, 359, 359]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_statistics_are_those_of_all_pixels(dtype):
    pixels = torch.randint(0, 256, (4099, 3, 5, 7), dtype=torch.uint8)  # more than one part of the sum
    unit = pixels.double() / 255
    x = pixels if dtype == torch.uint8 else unit.float()
    channel = Digits(normalize="channel").statistics(x)
    assert channel is not None
    mean, std = channel
    torch.testing.assert_close(mean.flatten().double(), unit.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(std.flatten().double(), unit.std((0, 2, 3), correction=0), atol=1e-6, rtol=0)
    pixel = Digits(normalize="pixel").statistics(x)
    assert pixel is not None
    torch.testing.assert_close(pixel[0].double(), unit.mean(0), atol=1e-6, rtol=0)
    assert Digits(normalize="none").statistics(x) is None


def test_uint8_images_are_normalised_as_torchvision_does():
    from dl_course.data.module import normalise

    x = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8)
    mean, std = torch.tensor([0.49, 0.48, 0.45]), torch.tensor([0.25, 0.24, 0.26])
    expected = normalize(x / 255, mean.tolist(), std.tolist())
    torch.testing.assert_close(normalise(x, mean.view(3, 1, 1), std.view(3, 1, 1)), expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(normalise(x, None, None), x / 255)


@pytest.mark.parametrize("normalize", ["none", "channel", "pixel"])
def test_each_normalisation_of_digits(normalize):
    data = Digits(normalize=normalize)
    x = data.tensors("train").x
    if normalize == "none":
        assert torch.equal(x, data.raw("train").x)
    elif normalize == "channel":
        assert abs(float(x.mean())) < 1e-6
        assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-5)
    else:
        torch.testing.assert_close(x, data.raw("train").x - data.raw("train").x.mean(0), atol=1e-6, rtol=0)


def test_only_training_images_are_augmented_and_off_is_bitwise_off():
    plain, off, on = Digits(), Digits(augment=Augment()), Digits(augment=Augment(translate=2))
    for a, b in zip(plain.train_dataloader(), off.train_dataloader(), strict=True):
        assert torch.equal(a[0], b[0])
    (a, labels), (b, same) = next(iter(plain.train_dataloader())), next(iter(on.train_dataloader()))
    assert torch.equal(labels, same)
    assert not torch.equal(a, b)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(plain.val_dataloader(), on.val_dataloader(), strict=True))


def test_padding_of_an_augmentation_is_black_before_normalising():
    data = Digits(augment=Augment(translate=7))
    x = next(iter(data.train_dataloader()))[0]
    assert float(x.min()) == pytest.approx(float(data.normalise(torch.zeros(1, 1, 8, 8)).min()))


# MNIST and Fashion-MNIST


def test_mnist_is_torchvision_s(real_data):
    data = MNIST(root=str(real_data), verify=True)
    train = datasets.MNIST(real_data, train=True)
    test = datasets.MNIST(real_data, train=False)
    assert torch.equal(torch.cat([data.raw("train").x, data.raw("val").x])[:, 0], train.data)
    assert torch.equal(data.raw("val").y, train.targets[-5000:])
    assert torch.equal(data.raw("test").x[:, 0], test.data)
    assert [len(data.raw(name).x) for name in data.splits] == [55_000, 5_000, 10_000]
    assert data.raw("train").x.dtype == torch.uint8
    x = data.tensors("test").x
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.std()) == pytest.approx(1, abs=0.02)


class TinyMNIST(MNIST):
    """The same code on 30 + 20 images."""

    counts, held_out, checksums = (30, 20), 5, {}


def write_idx(folder: Path, counts=(30, 20)) -> Path:
    """The four idx files with random content; the folder that holds them."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in zip(("train", "t10k"), counts):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = b"".join(number.to_bytes(4, "big") for number in (0x801, count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return raw


def test_small_idx_files_are_read_and_the_last_of_train_are_val(tmp_path):
    raw = write_idx(tmp_path)
    data = TinyMNIST(root=str(tmp_path))
    assert [len(data.raw(name).x) for name in data.splits] == [25, 5, 20]
    content = (raw / "train-images-idx3-ubyte").read_bytes()[16:]
    expected = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(30, 1, 28, 28)
    assert torch.equal(data.raw("val").x, expected[25:])


def test_a_truncated_file_is_named_with_its_sizes(tmp_path):
    path = write_idx(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="expected 23,536 bytes, found 23,436") as error:
        TinyMNIST(root=str(tmp_path)).setup()
    assert str(path) in str(error.value)
    assert "data.root=<folder>" in str(error.value)
    assert len(str(error.value).splitlines()) <= 5


def test_damage_at_equal_size_is_found_by_verify(tmp_path, monkeypatch):
    path = write_idx(tmp_path) / "t10k-labels-idx1-ubyte"
    checksums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()}
    monkeypatch.setattr(TinyMNIST, "checksums", checksums)
    TinyMNIST(root=str(tmp_path), verify=True).setup()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="SHA-256") as error:
        TinyMNIST(root=str(tmp_path), verify=True).setup()
    assert str(path) in str(error.value)


def test_verify_without_known_checksums_says_so(tmp_path):
    write_idx(tmp_path)
    with pytest.raises(ConfigError, match="cannot verify"):
        TinyMNIST(root=str(tmp_path), verify=True).setup()


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, CIFAR10])
def test_without_a_network_the_message_names_source_target_and_way_out(tmp_path, monkeypatch, cls):
    if cls is CIFAR10:
        monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    else:
        monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ConfigError) as error:
        cls(root=str(tmp_path / "data")).setup()
    message = str(error.value)
    folder = "cifar-10-batches-py" if cls is CIFAR10 else cls.__name__
    assert all(part in message for part in (str(tmp_path / "data" / folder), "http://127.0.0.1:9/", "data.root="))
    assert len(message.splitlines()) <= 5
    assert not list((tmp_path / "data").glob("*[!k]/*"))  # nothing half-made is left behind


def test_a_download_is_put_in_place_whole_and_can_be_verified(tmp_path, monkeypatch):
    def download(self) -> None:  # torchvision's own writes below self.raw_folder, archives included
        source = write_idx(tmp_path / "source")
        target = Path(self.raw_folder)
        target.mkdir(parents=True)
        for path in source.iterdir():
            path.rename(target / path.name)
            (target / f"{path.name}.gz").write_bytes(b"archive")

    monkeypatch.setattr(datasets.MNIST, "download", download)
    data = TinyMNIST(root=str(tmp_path / "data"), verify=True)
    data.setup()
    raw = tmp_path / "data" / "MNIST" / "raw"
    assert len(list(raw.iterdir())) == 4
    path = raw / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="SHA-256"):  # by the checksum recorded at the download
        TinyMNIST(root=str(tmp_path / "data"), verify=True).setup()


# CIFAR-10


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    """Six batches of ten random photographs in torchvision's layout; the folder that holds them."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch() -> dict:
        return {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": rng.integers(0, 10, 10).tolist()}

    train = [write(f"data_batch_{i}", batch()) for i in range(1, 6)]
    names, meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", batch())])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": names, "key": "label_names", "md5": meta})
    monkeypatch.setattr(CIFAR10, "held_out", 7)
    return folder


def test_cifar_is_torchvision_s_channels_first(cifar):
    data = CIFAR10(root=str(cifar.parent))
    reference = datasets.CIFAR10(cifar.parent, train=True)
    x = torch.cat([data.raw("train").x, data.raw("val").x])
    assert [len(data.raw(name).x) for name in data.splits] == [43, 7, 10]
    assert torch.equal(x[4, :, 3, 5], torch.from_numpy(reference.data[4, 3, 5]))
    assert torch.equal(x.permute(0, 2, 3, 1), torch.from_numpy(reference.data))
    assert data.raw("val").y.tolist() == reference.targets[-7:]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:-1] + bytes([b[-1] ^ 1]), None])
def test_damaged_or_missing_cifar_files_are_named_before_they_are_read(cifar, damage):
    path = cifar / "data_batch_3"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError) as error:
        CIFAR10(root=str(cifar.parent)).setup()
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) <= 5


# Folders


def picture(path: Path, color, size=(20, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[:] = color
    pixels[:, : size[0] // 2, 0] += 7  # left and right differ
    Image.fromarray(pixels).save(path)


def fill(root: Path, n: int = 10, classes=("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        for i in range(n):
            picture(root / name / f"{i}.png", (20 * label, 2 * i, 100))
    return root


def test_a_folder_of_class_folders(tmp_path):
    (fill(tmp_path) / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    data = ImageFolder(root=str(tmp_path), image_size=6)
    assert data.class_names == ["cat", "dog"]
    assert (data.shape, data.num_features, data.num_classes, data.num_outputs) == ((3, 6, 6), 108, 2, 2)
    assert {name: torch.bincount(data.raw(name).y).tolist() for name in data.splits} == {
        "train": [6, 6],
        "val": [2, 2],
        "test": [2, 2],
    }
    for name in data.splits:  # green holds the number of the picture, red the class
        x, y = data.raw(name)
        assert x.dtype == torch.uint8
        assert torch.equal(x[:, 0, 0, 5].long(), 20 * y)


def test_train_val_and_test_folders_are_kept(tmp_path):
    for name, n in {"train": 5, "val": 3, "test": 2}.items():
        fill(tmp_path / name, n)
    data = ImageFolder(root=str(tmp_path))
    assert {name: len(data.raw(name).x) for name in data.splits} == {"train": 10, "val": 6, "test": 4}


def test_without_a_val_folder_it_comes_out_of_train_and_without_test_there_is_none(tmp_path):
    fill(tmp_path / "train", 10)
    data = ImageFolder(root=str(tmp_path))
    assert {name: len(data.raw(name).x) for name in data.splits} == {"train": 16, "val": 4}
    assert data.test_dataloader() is None
    with pytest.raises(ConfigError, match="no split 'test'"):
        data.raw("test")


def test_grey_pictures_cut_in_the_middle_and_turned_upright(tmp_path):
    fill(tmp_path)
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 4:12] = 200  # the middle square
    exif = Image.Exif()
    Image.fromarray(pixels).save(tmp_path / "cat" / "a.png")
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to see it"
    tall = np.zeros((8, 8, 3), dtype=np.uint8)
    tall[:, :4] = 200  # left, hence above after turning
    Image.fromarray(tall).save(tmp_path / "cat" / "b.png", exif=exif)
    from dl_course.data.images import decode_images

    middle, turned = decode_images([tmp_path / "cat" / "a.png", tmp_path / "cat" / "b.png"], 8, channels=1)
    assert middle.shape == (1, 8, 8)
    assert torch.equal(middle, torch.full((1, 8, 8), 200, dtype=torch.uint8))
    assert int(turned[0, 0].min()) == 200
    assert int(turned[0, -1].max()) == 0


def test_the_cache_is_read_again_and_notices_a_change(tmp_path, monkeypatch):
    monkeypatch.setenv("DL_COURSE_DATA", str(tmp_path / "data"))
    root = fill(tmp_path / "photos")
    first = ImageFolder(root=str(root), cache=True).raw("train").x
    (cached,) = (tmp_path / "data" / "folders").glob("photos-*")
    monkeypatch.setattr("dl_course.data.images.decode_images", None)  # a second decoding would fail
    assert torch.equal(ImageFolder(root=str(root), cache=True).raw("train").x, first)
    content = bytearray((cached / "images.npy").read_bytes())
    content[-1] ^= 1
    (cached / "images.npy").write_bytes(content)
    with pytest.raises(ConfigError, match="SHA-256"):
        ImageFolder(root=str(root), cache=True, verify=True).setup()
    monkeypatch.undo()
    monkeypatch.setenv("DL_COURSE_DATA", str(tmp_path / "data"))
    picture(root / "cat" / "0.png", (255 - 7, 0, 0), size=(30, 30))
    changed = ImageFolder(root=str(root), cache=True)
    images = torch.cat([changed.raw(name).x for name in changed.splits])
    assert int(images[:, 0].max()) == 255  # the new picture, not the one in the cache


def _load_folder(root: str, digests) -> None:
    data = ImageFolder(root=root, cache=True, verify=True)
    digests.put(hashlib.sha256(data.raw("train").x.numpy().tobytes()).hexdigest())


def test_four_processes_decode_one_cache_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DL_COURSE_DATA", str(tmp_path / "data"))
    root = str(fill(tmp_path / "photos", 20))
    context = mp.get_context("fork")
    digests = context.SimpleQueue()
    processes = [context.Process(target=_load_folder, args=(root, digests)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len({digests.get() for _ in processes}) == 1
    assert len(list((tmp_path / "data" / "folders").glob("photos-*"))) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no such folder of images"),
        (lambda root: root.mkdir(), "at least two folders with images expected in .*, found 0"),
        (lambda root: picture(root / "cat" / "1.png", 0), "found 1: cat"),
        (lambda root: (fill(root) / "cat" / "x.jpg").write_bytes(b"no picture"), r"not a readable image: .*x\.jpg"),
        (
            lambda root: (fill(root) / "dog" / "0.png").write_bytes((root / "dog" / "0.png").read_bytes()[:60]),
            r"not a readable image: .*0\.png",
        ),
        (lambda root: (fill(root / "train"), fill(root / "val", 2, ["cat", "dgo"])), "did you mean 'dog'"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_a_few_lines(tmp_path, make, message):
    make(tmp_path / "photos")
    with pytest.raises(ConfigError, match=message) as error:
        ImageFolder(root=str(tmp_path / "photos")).setup()
    assert len(str(error.value).splitlines()) <= 5


def test_a_folder_must_be_named():
    with pytest.raises(ConfigError, match=r"data\.root=<folder>"):
        ImageFolder().setup()
