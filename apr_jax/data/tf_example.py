"""An image and its label as a serialised ``tf.train.Example``, without TensorFlow.

So TFDS stores them: a map with "image", the bytes of an encoded file, and "label", a
whole number. The format is that of Protocol Buffers
(https://protobuf.dev/programming-guides/encoding), of these messages:

    Example   {Features features = 1}
    Features  {map<string, Feature> feature = 1}
    Feature   {BytesList bytes_list = 1 or FloatList ... = 2 or Int64List ... = 3}
    BytesList {repeated bytes value = 1}
    Int64List {repeated int64 value = 1 [packed]}
"""

from collections.abc import Iterator

_VARINT, _SIXTY_FOUR, _LENGTH, _THIRTY_TWO = 0, 1, 2, 5
_BYTES, _NUMBERS = 1, 3  # of Feature


class NotAnExampleError(ValueError):
    """Bytes that aren't such an example."""


def encode(image: bytes, label: int) -> bytes:
    """Serialises an example.

    Args:
        image: an encoded file.
        label: at least 0.
    """
    numbers = _field(1, _varint(label))  # a list of one number, packed
    entries = (
        _entry(b"image", _field(_BYTES, _field(1, image))),
        _entry(b"label", _field(_NUMBERS, numbers)),
    )
    return _field(1, b"".join(entries))


def decode(record: bytes) -> tuple[bytes, int]:
    """Returns image and label of an example.

    Raises:
        NotAnExampleError: it has none, or isn't one.
    """
    image = label = None
    try:
        for features in _of(memoryview(record), 1):
            for entry in _of(features, 1):
                (name,) = _of(entry, 1)
                if name == b"image":
                    (image,) = (
                        v for f in _of(entry, 2) for b in _of(f, 1) for v in _of(b, 1)
                    )
                elif name == b"label":
                    (label,) = (
                        _first(n) for f in _of(entry, 2) for n in _of(f, _NUMBERS)
                    )
    except (ValueError, IndexError) as error:
        raise NotAnExampleError(f"it is no tf.train.Example ({error})") from None
    if image is None or label is None:
        raise NotAnExampleError("it has no 'image' and 'label'")
    return bytes(image), label


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _field(number: int, contents: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(contents)) + contents


def _entry(name: bytes, feature: bytes) -> bytes:
    return _field(1, _field(1, name) + _field(2, feature))


def _read_varint(buffer: memoryview, at: int) -> tuple[int, int]:
    """A number, and the place after it."""
    number = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _of(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yields the contents of a message's fields of one number, which have a length."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == _LENGTH:
            size, at = _read_varint(message, at)
            if at + size > len(message):
                raise ValueError("cut off")
            if key >> 3 == wanted:
                yield message[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind in (_SIXTY_FOUR, _THIRTY_TWO):
            at += 8 if kind == _SIXTY_FOUR else 4
        else:
            raise ValueError(f"a field of kind {kind}")


def _first(numbers: memoryview) -> int:
    """The one number of an Int64List, packed or not."""
    key, at = _read_varint(numbers, 0)
    if key & 7 == _LENGTH:
        _, at = _read_varint(numbers, at)
    number, _ = _read_varint(numbers, at)
    return number - (1 << 64 if number >> 63 else 0)
