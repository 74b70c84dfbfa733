"""Reads the TFRecords in the directory named by the argument with TensorFlow, compares them with what tests/seams/formats.rs wrote, and
writes the same records to `<directory>/tensorflow`, for muster to read: the labels one-hot, and as classes in another file."""

import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

ROWS, WIDTH, CLASSES = 253, 6, 3
FEATURES = (np.arange(ROWS * WIDTH) * 7 % 256).astype(np.int64).reshape(ROWS, WIDTH)
LABELS = np.eye(CLASSES, dtype=np.int64)[np.arange(ROWS) % CLASSES]

out = pathlib.Path(sys.argv[1])
parts = sorted(str(path) for path in out.glob("part-r-*"))
assert len(parts) == 2, parts
shapes = {"image": tf.io.FixedLenFeature([WIDTH], tf.int64), "label": tf.io.FixedLenFeature([CLASSES], tf.int64)}
read = [tf.io.parse_single_example(record, shapes) for record in tf.data.TFRecordDataset(parts)]
assert np.array_equal(np.stack([record["image"] for record in read]), FEATURES)
assert np.array_equal(np.stack([record["label"] for record in read]), LABELS)


def integers(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


(out / "tensorflow").mkdir()
for name, labels in (("one-hot", LABELS), ("classes", LABELS.argmax(1)[:, None])):
    with tf.io.TFRecordWriter(str(out / "tensorflow" / name)) as writer:
        for image, label in zip(FEATURES, labels):
            features = tf.train.Features(feature={"image": integers(image), "label": integers(label)})
            writer.write(tf.train.Example(features=features).SerializeToString())
