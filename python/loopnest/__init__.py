"""Neural-network kernels for the CPU that run inside your own loop."""

from loopnest.descent.descent import Descent, descend
from loopnest.logic.circuit import Circuit
from loopnest.logic.network import LogicNetwork
from loopnest.logic.packed import PackedLogic
from loopnest.logic.thermometer import Thermometer
from loopnest.network.layers import (
    GELU,
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    Identity,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from loopnest.network.network import Network
from loopnest.network.onnx.load import load_onnx
from loopnest.ops.activation import (
    exp,
    exp_backward,
    gelu,
    gelu_backward,
    gelu_derivative,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    tanh,
    tanh_backward,
)
from loopnest.ops.convolution import conv2d, conv2d_backward
from loopnest.ops.dense import linear, linear_backward
from loopnest.ops.gates import GATE_NAMES, Gate, gate, gate_forward
from loopnest.ops.loss import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_with_grad,
    log_softmax,
    softmax,
)
from loopnest.ops.optimizer import (
    adagrad_step,
    adam_step,
    adamw_step,
    lion_step,
    rmsprop_step,
    sgd_step,
)
from loopnest.ops.packing import PackedWeight, pack_weight
from loopnest.ops.pooling import (
    average_filter,
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
    max_pool2d_backward,
)
from loopnest.ops.shapes import conv2d_output_shape, conv2d_paddings_for
from loopnest.runtime.backend import available_backends, get_backend, use_backend
from loopnest.runtime.paths import get_include, get_library_dir
from loopnest.runtime.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"
