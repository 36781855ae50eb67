"""Federated learning client in TensorFlow, for a Raspberry Pi, a Jetson or a laptop: trains on its own images.

Start one on each device, each with its own number. It finds the server on the network, or takes its address:

    python client_tf.py --cid=0
    python client_tf.py --cid=1 --server_address=192.168.1.10:8080

By default, it trains a MobileNet of 1.5 million parameters on CIFAR-10. On a small board, add --mnist for a small CNN.
"""

from __future__ import annotations

import math
import random
from functools import partial

from federation.client.connection import stay_connected
from federation.client.flags import ClientSettings, parse_client
from federation.client.progress import FitProgress
from federation.data.partitions import Examples, load_partition
from federation.flags import ArgumentParser, run_main, whole_number
from federation.wire.addresses import server_address

import flwr as fl
import tensorflow as tf
from flwr.common import NDArrays, Scalar
from tensorflow import keras

NUM_CLIENTS = 50  # number of partitions of the data set, the same on all clients
EPOCHS, BATCH_SIZE = 3, 16  # unless the server sends others, as ours does: see fit_config in server.py
LEARNING_RATE = {"cifar10": 1e-3, "mnist": 3e-3}  # at its peak
TEST_BATCH_SIZE = 128  # does not change the result; larger is faster but takes more memory
set_seed = random.seed  # for all random numbers; setting TensorFlow's own seed in each fit would take seconds
new_seed = partial(random.getrandbits, 31)  # draws a seed for one of TensorFlow's random operations


def small_cnn() -> keras.Model:
    """Return a CNN for MNIST with 44,426 parameters: LeNet-5 (LeCun et al., 1998) with ReLU and max pooling."""
    layers = [
        keras.Input((28, 28, 1)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),  # uint8 from 0 to 255 -> -1 to 1
        keras.layers.Conv2D(6, kernel_size=5, activation="relu"),  # [n, 28, 28, 1] -> [n, 24, 24, 6]
        keras.layers.MaxPooling2D(),  # -> [n, 12, 12, 6]
        keras.layers.Conv2D(16, kernel_size=5, activation="relu"),  # -> [n, 8, 8, 16]
        keras.layers.MaxPooling2D(),  # -> [n, 4, 4, 16]
        keras.layers.Flatten(),  # -> [n, 256]
        keras.layers.Dense(120, activation="relu"),
        keras.layers.Dense(84, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    return keras.Sequential(layers)


def mobilenet() -> keras.Model:
    """Return MobileNetV3-small (Howard et al., 2019), adapted to small images and few training steps."""
    # It takes pixels from 0 to 255. No dropout: its random numbers would not come from the seed of a fit.
    original = keras.applications.MobileNetV3Small((32, 32, 3), weights=None, classes=10, dropout_rate=0)
    names = [layer.name.lower() for layer in original.layers]  # such as expanded_conv_2_add; old Keras: .._2/add
    residual_blocks = [name[: -len("add")] for name in names if name.endswith(("_add", "/add"))]

    def adapted(layer: keras.layers.Layer) -> keras.layers.Layer:
        config, name = layer.get_config(), layer.name.lower()
        if name == "conv":
            config["strides"] = 1  # the original halves images five times: 32 x 32 would end as 1 x 1
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = 0.9  # with the original's 0.999, the statistics for evaluation lag behind for epochs
            if name.split("project")[0] in residual_blocks:  # the last one of a block, project_bn
                config["gamma_initializer"] = "zeros"  # each block starts as the identity: averages well from round 1
        return layer.__class__.from_config(config)

    return keras.models.clone_model(original, clone_function=adapted)


def build_model(dataset: str) -> keras.Model:
    """Return an untrained model for `dataset`, "mnist" or "cifar10"."""
    keras.utils.set_random_seed(new_seed())  # for the weights
    model = small_cnn() if dataset == "mnist" else mobilenet()
    model.compile(
        optimizer=keras.optimizers.Adam(weight_decay=0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # compiling takes more time than it saves in a short training, and 1 GB
    )
    model.optimizer.build(model.trainable_variables)
    tf.random.set_seed(0)  # the same everywhere: random operations in a fit have their own seeds
    return model


def as_dataset(examples: Examples) -> tf.data.Dataset:
    """Return pairs of an image, uint8 [height, width, channels], and its label, int64 []."""
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread sleeps longer and longer, and fit waits for it: up to twice the time
    return tf.data.Dataset.from_tensor_slices(tuple(examples)).with_options(options)


def augment(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mirror a random half of the images [n, height, width, channels] and shift all of them by up to 3 pixels."""
    shift = tf.random.uniform([2], -3, 4, dtype=tf.int32, seed=new_seed())
    return tf.roll(tf.image.random_flip_left_right(images, seed=new_seed()), shift, axis=[1, 2]), labels


def one_cycle(progress: float) -> float:
    """Return the learning rate after `progress` of a fit, both from 0 to 1: up, then down (Smith and Topin, 2018)."""
    return min(progress / 0.3, (1 - progress) / 0.7)


def train(
    model: keras.Model, examples: Examples, learning_rate: float, epochs: int, batch_size: int, seconds: float
) -> tuple[float, float]:
    """Train the model in place for `epochs`, or until `seconds` have passed.

    Return the mean loss per example in the last epoch, and the number of epochs done, such as 1.73.
    """
    num_examples = len(examples.labels)
    batch_size = min(batch_size, num_examples)
    fit = FitProgress(epochs, num_examples // batch_size, seconds)  # prints a progress line on a terminal
    # The last images of an epoch are dropped, because BatchNorm does badly on a small batch.
    data = as_dataset(examples).shuffle(num_examples, new_seed()).batch(batch_size, drop_remainder=True)
    if examples.images.shape[3] == 3:  # digits are not augmented: a mirrored 3 is not a 3
        data = data.map(augment)
    variables = model.optimizer.variables
    for variable in variables() if callable(variables) else variables:  # a method up to TensorFlow 2.15
        variable.assign(tf.zeros_like(variable))  # each fit starts with a fresh optimizer

    def begin_step(batch: int, logs: dict | None) -> None:
        model.optimizer.learning_rate = learning_rate * one_cycle(fit.fraction)

    def end_step(batch: int, logs: dict | None) -> None:
        fit.end_step()
        model.stop_training = fit.is_over

    steps = keras.callbacks.LambdaCallback(on_train_batch_begin=begin_step, on_train_batch_end=end_step)
    history = model.fit(data, epochs=epochs, shuffle=False, callbacks=[steps], verbose=0)
    return history.history["loss"][-1], fit.epochs_done


def test(model: keras.Model, examples: Examples) -> tuple[float, float]:
    """Return the mean loss per example and the accuracy of the model."""
    return tuple(model.evaluate(as_dataset(examples).batch(TEST_BATCH_SIZE), verbose=0))


def get_parameters(model: keras.Model) -> NDArrays:
    """Return the model as a list of arrays."""
    return model.get_weights()


def set_parameters(model: keras.Model, parameters: NDArrays) -> None:
    """Set the model from a list of arrays; raises ValueError if they belong to another model."""
    model.set_weights(parameters)


class FlowerClient(fl.client.NumPyClient):
    """The client on the device: in each round, Flower calls `fit`, then `evaluate`."""

    def __init__(self, dataset: str, train_set: Examples, validation_set: Examples) -> None:
        self.dataset = dataset
        self.model = build_model(dataset)
        self.learning_rate = LEARNING_RATE[dataset]
        self.train_set, self.validation_set = train_set, validation_set

    def get_parameters(self, config: dict[str, Scalar]) -> NDArrays:
        """Return an untrained model; the server asks one client for it before the first round."""
        if "seed" in config:
            set_seed(int(config["seed"]))
            self.model = build_model(self.dataset)
        return get_parameters(self.model)

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """Train the global model on this client's images; return the new model and the number of images."""
        set_parameters(self.model, parameters)
        if "seed" in config:  # a different one for each client and round
            set_seed(int(config["seed"]))
        epochs, batch_size = int(config.get("epochs", EPOCHS)), int(config.get("batch_size", BATCH_SIZE))
        seconds = float(config.get("fit_seconds", math.inf))
        loss, epochs_done = train(self.model, self.train_set, self.learning_rate, epochs, batch_size, seconds)
        metrics: dict[str, Scalar] = {"train_loss": loss, "epochs": epochs_done}
        return get_parameters(self.model), len(self.train_set.labels), metrics

    def evaluate(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[float, int, dict[str, Scalar]]:
        """Test the global model on this client's validation images."""
        set_parameters(self.model, parameters)
        loss, accuracy = test(self.model, self.validation_set)
        return loss, len(self.validation_set.labels), {"accuracy": accuracy}


def set_threads(threads: int) -> None:
    """Set the number of threads that TensorFlow computes with; has no effect after its first computation."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # the models have no branches that could run in parallel


def make_client(settings: ClientSettings) -> FlowerClient:
    """Load this client's partition, take a share of this machine's cores, and build the model."""
    train_set, validation_set = load_partition(settings.partitioning, settings.cid)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)  # by default, TensorFlow takes all of a Jetson's memory
    settings.threads.share_cores(set_threads, most=1 if gpus else 4)
    return FlowerClient(settings.dataset, train_set, validation_set)


def main() -> None:
    """Make this client, and take part in the server's rounds."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--cid", type=whole_number(0), required=True, help="this client's number and partition: 0 to NUM_CLIENTS - 1"
    )
    parser.add_argument(
        "--server_address", type=server_address, help="HOST:PORT of the server (default: find it on the network)"
    )
    parser.add_argument("--mnist", action="store_true", help="a small CNN on MNIST (default: MobileNet on CIFAR-10)")
    args, settings = parse_client(parser, NUM_CLIENTS)  # adds the operational flags: folder, threads, TLS, token
    stay_connected(make_client(settings), settings)


if __name__ == "__main__":
    run_main(main)
