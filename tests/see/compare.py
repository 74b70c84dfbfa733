"""Compares what TensorBoard says of a log directory with the lines of its metrics.

files DIR        the event files, read by TensorBoard's EventAccumulator
server URL DIR   a running TensorBoard, asked over HTTP
"""

import io
import json
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SCALARS = {
    "train/loss": "loss",
    "train/accuracy": "accuracy",
    "train/learning_rate": "learning_rate",
    "train/images_per_second": "images_per_second",
}


def f32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def lines(directory):
    """Steps and epochs by their steps, those that were done again left out."""
    steps, epochs = {}, {}
    for text in open(f"{directory}/metrics.jsonl"):
        if not text.endswith("\n"):
            break
        ((kind, line),) = json.loads(text).items()
        if kind == "run":
            for known in (steps, epochs):
                for step in [step for step in known if step > line["first_step"]]:
                    del known[step]
        elif kind in ("steps", "epoch"):
            (steps if kind == "steps" else epochs)[line["step"]] = line
    return steps, epochs


def wanted(directory):
    """Tag -> step -> value."""
    steps, epochs = lines(directory)
    tags = {tag: {step: f32(line[field]) for step, line in steps.items()} for tag, field in SCALARS.items()}
    for field in ("loss", "accuracy"):
        tags[f"test/{field}"] = {step: f32(line[f"test_{field}"]) for step, line in epochs.items()}
    return tags


def files(directory):
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "histograms": 0, "images": 0, "tensors": 0}
    events = EventAccumulator(directory, size_guidance=everything)
    events.Reload()
    tags = wanted(directory)
    assert set(events.Tags()["scalars"]) == set(tags), events.Tags()
    for tag, values in tags.items():
        found = {event.step: event.value for event in events.Scalars(tag)}
        assert found == values, (tag, found, values)
    report = json.load(open(f"{directory}/report.json"))
    model, epochs = report["model"], lines(directory)[1]
    for layer, parameters in enumerate((n + 1) * m for n, m in zip(model, model[1:])):
        for kind in ("weights", "gradients"):
            histograms = events.Histograms(f"layer_{layer}/{kind}")
            # At most one a second, so not one for each of these short epochs.
            assert histograms and {event.step for event in histograms} <= set(epochs), histograms
            for histogram in (event.histogram_value for event in histograms):
                assert histogram.num == sum(histogram.bucket) == parameters, (layer, kind, histogram.num)
                assert list(histogram.bucket_limit) == sorted(set(histogram.bucket_limit))
                assert histogram.min <= histogram.sum / histogram.num <= histogram.max
    # Of pictures that were forgotten, the tag is left.
    pictures = {tag: events.Images(tag) for tag in events.Tags()["images"]}
    last = [tag for tag, images in pictures.items() if images and images[-1].step == report["steps"]]
    assert last and len(last) == len(report["mistakes"]), (pictures, len(report["mistakes"]))
    for tag, mistake in zip(sorted(last), report["mistakes"]):
        assert tag.endswith(f"_{mistake['label']}_read_as_{mistake['prediction']}"), tag
        picture = Image.open(io.BytesIO(pictures[tag][-1].encoded_image_string))
        assert list(picture.size) == mistake["shape"][::-1], picture.size
        assert picture.tobytes().hex() == mistake["pixels"], tag
    text = events.Tensors("options")[-1].tensor_proto.string_val[0].decode()
    assert "| seed | 1 |" in text and "| hidden | 16 |" in text, text


def server(url, directory):
    def ask(path, **query):
        query = urllib.parse.urlencode(query)
        with urllib.request.urlopen(f"{url}data/plugin/{path}?{query}", timeout=10) as answer:
            return json.load(answer)

    def eventually(path, **query):
        for _ in range(120):
            try:
                if found := ask(path, **query):
                    return found
            except (urllib.error.URLError, TimeoutError):
                pass
            time.sleep(0.25)
        raise AssertionError(f"TensorBoard has nothing for {path} {query}")

    for tag in SCALARS:
        found = eventually("scalars/scalars", run=".", tag=tag)
        values = wanted(directory)[tag]
        for _, step, value in found:
            assert value == values[step], (tag, step, value, values[step])
    _, _, buckets = eventually("histograms/histograms", run=".", tag="layer_0/weights")[0]
    assert abs(sum(count for _, _, count in buckets) - 145 * 16) < 1, buckets
    assert "seed" in eventually("text/text", run=".", tag="options")[0]["text"]


if __name__ == "__main__":
    {"files": files, "server": server}[sys.argv[1]](*sys.argv[2:])
