"""Neural-network kernels for the CPU that run inside your own loop."""

from loopnest.activation import (
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
from loopnest.backend import available_backends, get_backend, use_backend
from loopnest.circuit import Circuit
from loopnest.convolution import conv2d, conv2d_backward
from loopnest.dense import linear, linear_backward
from loopnest.descent import Descent, descend
from loopnest.gates import GATE_NAMES, Gate, gate, gate_forward
from loopnest.layers import (
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
from loopnest.logic_network import LogicNetwork
from loopnest.loss import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_with_grad,
    log_softmax,
    softmax,
)
from loopnest.network import Network
from loopnest.onnx import load_onnx
from loopnest.optimizer import (
    adagrad_step,
    adam_step,
    adamw_step,
    lion_step,
    rmsprop_step,
    sgd_step,
)
from loopnest.output_size import conv2d_output_shape, conv2d_paddings_for
from loopnest.packed_logic import PackedLogic
from loopnest.packing import PackedWeight, pack_weight
from loopnest.paths import get_include, get_library_dir
from loopnest.pooling import (
    average_filter,
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_max_pool2d,
    max_pool2d,
    max_pool2d_backward,
)
from loopnest.thermometer import Thermometer
from loopnest.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"
