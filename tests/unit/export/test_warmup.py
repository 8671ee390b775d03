"""The warm-up requests are records that TensorFlow Serving's own messages parse, and that the model answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tensorflow as tf
from classifiers import small_classifier
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

from job.export import saved_model, warmup

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = {
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "PredictRequest.InputsEntry")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}
"""The fields that are written, with the numbers of TensorFlow Serving's prediction_log.proto, predict.proto and
model.proto."""


def message_class() -> Any:
    """Return the class of ``PredictionLog``, made from `MESSAGES`."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="prediction_log.proto", package="serving", syntax="proto3")
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number, label=field_type.LABEL_OPTIONAL)
            if kind == "string":
                field.type = field_type.TYPE_STRING
            else:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".serving.{kind}"
            if kind.endswith("Entry"):
                field.label = field_type.LABEL_REPEATED
                entry = message.nested_type.add(name="InputsEntry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=field_type.TYPE_STRING, label=field_type.LABEL_OPTIONAL)
                entry.field.add(
                    name="value",
                    number=2,
                    type=field_type.TYPE_MESSAGE,
                    type_name=".tensorflow.TensorProto",
                    label=field_type.LABEL_OPTIONAL,
                )
    pool = descriptor_pool.DescriptorPool()

    def add(descriptor: Any) -> None:
        for dependency in descriptor.dependencies:
            add(dependency)
        pool.AddSerializedFile(descriptor.serialized_pb)

    add(tensor_pb2.DESCRIPTOR)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.PredictionLog"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel."""
    folder = tmp_path_factory.mktemp("export") / "model"
    saved_model.save(small_classifier(), folder, max_pixels=10**6)
    return folder / "saved_model"


@pytest.mark.slow
def test_model_answers_the_requests(folder: Path) -> None:
    """There is a request for each signature, which the signature answers with a probability for each label."""
    prediction_log, signatures = message_class(), tf.saved_model.load(str(folder)).signatures
    answered = []
    for record in tf.data.TFRecordDataset(str(folder / warmup.FILE)).as_numpy_iterator():
        request = prediction_log.FromString(record).predict_log.request
        inputs = {
            name: tf.make_ndarray(tensor_pb2.TensorProto.FromString(value.SerializeToString()))
            for name, value in request.inputs.items()
        }
        assert warmup.MODEL_NAME == request.model_spec.name
        answer = signatures[request.model_spec.signature_name](
            **{name: tf.constant(value) for name, value in inputs.items()}
        )
        assert (1, 2) == answer["probabilities"].shape
        answered.append(request.model_spec.signature_name)

    assert sorted(signatures) == sorted(answered)


@pytest.mark.slow
def test_nothing_else_is_in_a_record(folder: Path) -> None:
    """The messages, serialized again, are the records: no field was lost or misunderstood."""
    prediction_log = message_class()
    for record in tf.data.TFRecordDataset(str(folder / warmup.FILE)).as_numpy_iterator():
        parsed = prediction_log.FromString(record)
        assert record == parsed.SerializeToString(deterministic=True)


def test_long_fields() -> None:
    """A length of more than seven bits takes several bytes, as the wire format has it."""
    assert (b"\x00", b"\x7f", b"\x80\x01", b"\xac\x02") == tuple(map(warmup._varint, (0, 127, 128, 300)))


@pytest.mark.parametrize("size", [1, 32, 224])
def test_picture(size: int) -> None:
    """The picture has gradients over the whole range."""
    picture = warmup.draw(size).numpy()

    assert (size, size, 3) == picture.shape
    assert size == 1 or (0, 255) == (picture.min(), picture.max())
