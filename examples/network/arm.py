"""A two-link robot arm, simulated in compiled code, with a trained policy in the loop.

The arm's equations of motion (Spong, Hutchinson and Vidyasagar, Robot Modeling and Control, section 7.3) are
integrated by semi-implicit Euler steps. A small network gives the torques of both joints. It learns by
imitation of a feedback law (computed torque); then the arm runs with it alone. The loop runs
compiled with `Network.njit`, and in plain Python with PyTorch and ONNX Runtime called at each step.

    python examples/network/arm.py --steps 100000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numba import njit

import loopnest as ln

DT = 0.002  # s
GOAL = np.array([0.6, -0.9])  # rad, what the joints shall reach


@njit
def dynamics(q, speed, torque):
    """Angular accelerations of two links of 1 m and 1 kg, mass at their ends; rad, s, N m."""
    g = 9.81
    c2, s2 = np.cos(q[1]), np.sin(q[1])
    m11, m12, m22 = 3.0 + 2.0 * c2, 1.0 + c2, 1.0
    h = -s2 * (2.0 * speed[0] * speed[1] + speed[1] * speed[1])
    rest0 = torque[0] - h - g * (2.0 * np.cos(q[0]) + np.cos(q[0] + q[1]))
    rest1 = torque[1] - s2 * speed[0] * speed[0] - g * np.cos(q[0] + q[1])
    det = m11 * m22 - m12 * m12
    return (m22 * rest0 - m12 * rest1) / det, (m11 * rest1 - m12 * rest0) / det


@njit
def teacher(q, speed, goal):
    """Computed torque: what cancels the dynamics and pulls towards the goal."""
    a0 = 16.0 * (goal[0] - q[0]) - 8.0 * speed[0]
    a1 = 16.0 * (goal[1] - q[1]) - 8.0 * speed[1]
    c2, s2, g = np.cos(q[1]), np.sin(q[1]), 9.81
    h = -s2 * (2.0 * speed[0] * speed[1] + speed[1] * speed[1])
    t0 = (3.0 + 2.0 * c2) * a0 + (1.0 + c2) * a1 + h
    t0 += g * (2.0 * np.cos(q[0]) + np.cos(q[0] + q[1]))
    t1 = (1.0 + c2) * a0 + a1 + s2 * speed[0] * speed[0] + g * np.cos(q[0] + q[1])
    return t0, t1


@njit
def observe(q, speed, goal, x):
    """What the network sees: sines and cosines of the joints, speeds, distances to the goal."""
    for i in range(2):
        x[i], x[2 + i] = np.sin(q[i]), np.cos(q[i])
        x[4 + i], x[6 + i] = 0.25 * speed[i], goal[i] - q[i]


def policy(seed: int = 0) -> ln.Sequential:
    """8 - 64 - 64 - 2, torques in units of 50 N m."""
    return ln.Sequential(
        *(ln.Linear(8, 64), ln.Tanh(), ln.Linear(64, 64), ln.Tanh(), ln.Linear(64, 2)), seed=seed
    )


def imitate(net: ln.Sequential, rounds: int = 3000, rows: int = 256, seed: int = 0) -> float:
    """Train the network on the teacher's torques in random states; the last mean squared error."""
    rng, error = np.random.default_rng(seed), 0.0
    m, v = np.zeros_like(net.vector), np.zeros_like(net.vector)
    x, wanted = np.empty((rows, 8), np.float32), np.empty((rows, 2), np.float32)
    for step in range(rounds):
        near = rng.random(rows) < 0.5
        spread = np.where(near, 0.2, 1.2)[:, None]
        q, speed = GOAL + spread * rng.normal(size=(rows, 2)), spread * rng.normal(size=(rows, 2))
        for i in range(rows):
            observe(q[i], speed[i], GOAL, x[i])
            wanted[i] = np.array(teacher(q[i], speed[i], GOAL)) / 50
        y, tape = net.forward(x)
        error = float(np.mean((y - wanted) ** 2))
        _, gradients = net.backward((y - wanted) / np.float32(rows), tape)
        lr = 3e-3 * 0.5 * (1 + np.cos(np.pi * step / rounds))
        ln.adam_step(net.vector, gradients.vector, m, v, step=step + 1, lr=lr)
    return error


def compiled_loop(net: ln.Sequential):
    """Simulation and policy in one compiled function."""
    forward = net.njit()

    @njit
    def simulate(steps, q, speed, goal):
        x, y = np.empty(8, np.float32), np.empty(2, np.float32)
        for _ in range(steps):
            observe(q, speed, goal, x)
            forward(x, y)
            a0, a1 = dynamics(q, speed, np.float32(50) * y)
            speed[0] += DT * a0
            speed[1] += DT * a1
            q += DT * speed
        return q

    return simulate


def python_loop(act, steps, q, speed, goal):
    """The same with any function for the policy; the rest is compiled."""
    x = np.empty((1, 8), np.float32)
    for _ in range(steps):
        observe(q, speed, goal, x[0])
        y = act(x)
        a0, a1 = dynamics(q, speed, np.float32(50) * y[0])
        speed[0] += DT * a0
        speed[1] += DT * a1
        q += DT * speed
    return q


def torch_policy(net: ln.Sequential):
    """The same network in PyTorch, None where that is missing."""
    try:
        import torch
    except ImportError:
        return None
    nn = torch.nn
    module = nn.Sequential(
        *(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    )
    module.load_state_dict({k: torch.tensor(v) for k, v in net.state_dict().items()})
    torch.set_num_threads(1)

    def act(x):
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return act


def onnx_policy(net: ln.Sequential):
    """The same network in ONNX Runtime, None where that is missing."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    weights = net.state_dict()
    nodes, value = [], "x"
    for i in (0, 2, 4):
        names = [value, f"{i}.weight", f"{i}.bias"]
        value = f"z{i}"
        nodes.append(helper.make_node("Gemm", names, [value], transB=1))
        if i < 4:
            nodes.append(helper.make_node("Tanh", [value], [f"a{i}"]))
            value = f"a{i}"
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"x": x})[0]


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3000, help="of training")
    arguments = parser.parse_args(argv)
    net = policy()
    print(f"imitation: mean squared error {imitate(net, arguments.rounds):.2e}")
    simulate = compiled_loop(net)
    simulate(1, np.zeros(2), np.zeros(2), GOAL)  # compiles
    rates = {}

    def report(name, loop, steps):
        start = time.perf_counter()
        q = loop(steps, np.zeros(2), np.zeros(2), GOAL)
        rates[name] = steps / (time.perf_counter() - start)
        print(f"{name:24} {rates[name]:12,.0f} steps/s   joints {q[0]:+.3f} {q[1]:+.3f} rad, "
              f"goal {GOAL[0]:+.3f} {GOAL[1]:+.3f}")  # fmt: skip
        return q

    few = max(1000, arguments.steps // 20)
    report("loopnest in @njit", simulate, arguments.steps)
    policies = {"loopnest from Python": net, "PyTorch": torch_policy(net)}
    policies["ONNX Runtime"] = onnx_policy(net)
    for name, act in policies.items():
        if act is None:
            print(f"{name:24} not installed")
            continue
        act(np.zeros((1, 8), np.float32))
        report(name, lambda *a, act=act: python_loop(act, *a), few)
    return rates


if __name__ == "__main__":
    main()
