"""Signals: state moves as its equation says, carries no gradient, and tables survive padding and shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlx import errors, signals


def run(signal, values, *args):
    state, outputs = signal.init(*args), []
    for value in values:
        output, state = signal.update(jnp.asarray(value), state)
        outputs.append(output)
    return outputs, state


def test_ema_follows_its_recursion_and_debiases():
    outputs, _ = run(signals.ema(0.5), [1.0, 3.0])
    np.testing.assert_allclose(outputs, [0.5, 1.75])
    outputs, _ = run(signals.ema(0.5, debias=True), [1.0, 3.0])
    np.testing.assert_allclose(outputs, [1.0, 1.75 / 0.75])
    with pytest.raises(errors.UserError, match=r"decay must be in \[0, 1\)"):
        signals.ema(1.0)


def test_running_mean_is_the_mean_of_all_so_far():
    outputs, _ = run(signals.running_mean(), [1.0, 3.0, 8.0])
    np.testing.assert_allclose(outputs, [1, 2, 4])


def test_history_keeps_the_last_values_and_marks_the_unwritten():
    outputs, _ = run(signals.history(3), [1.0, 2.0])
    values, where = outputs[-1]
    np.testing.assert_array_equal(values[where], [1, 2])
    outputs, _ = run(signals.history(2), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(outputs[-1][0], [2, 3])


def test_integral_controller_integrates_the_error_within_bounds():
    controller = signals.integral_controller(target=2.0, rate=0.1, maximum=0.15)
    outputs, _ = run(controller, [1.0, 1.0, 5.0])
    np.testing.assert_allclose(outputs, [0.1, 0.15, 0], atol=1e-7)


def test_dual_ascent_is_projected():
    outputs, _ = run(signals.dual_ascent(bound=1.0, rate=0.5), [0.0, 3.0, 2.0])
    np.testing.assert_allclose(outputs, [0, 1, 1.5])


def test_adaptive_kl_clips_its_error():
    state = signals.adaptive_kl(target=0.1, horizon=100, initial=1.0)
    output, _ = state.update(jnp.asarray(10.0), state.init(), 10)
    np.testing.assert_allclose(output, 1 + 0.2 * 10 / 100, rtol=1e-6)


def test_label_table_sets_rows_and_drops_padding():
    labels = signals.dynamic_labels(4, gamma=0.25)
    table = labels.init()
    index = jnp.array([2, 0, 4])  # 4 is the padding row of a table of 4
    new, table = labels.update(jnp.array([0.0, 0.4, 0.9]), table, index)
    np.testing.assert_allclose(new[:2], [0.75, 0.85])
    np.testing.assert_allclose(table, [0.85, 1, 0.75, 1])
    np.testing.assert_allclose(signals.lookup(table, index), [0.75, 0.85, 1])


def test_label_table_is_the_same_on_every_shard():
    labels = signals.dynamic_labels(6, gamma=0.5)
    index, probability = np.array([5, 0, 3, 6]), np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    _, expected = labels.update(jnp.asarray(probability), labels.init(), jnp.asarray(index))
    tables = jax.pmap(lambda p, i: labels.update(p, labels.init(), i, "i")[1], axis_name="i")(
        probability.reshape(2, 2), index.reshape(2, 2)
    )
    np.testing.assert_array_equal(tables, np.stack([expected] * 2))


@pytest.mark.parametrize(
    "signal",
    [signals.ema(0.9), signals.running_mean(), signals.integral_controller(1, 0.1), signals.dual_ascent(0, 0.1)],
)
def test_no_gradient_flows(signal):
    assert jax.grad(lambda x: signal.update(x, signal.init())[0])(0.7) == 0


def test_the_first_value_stays():
    outputs, _ = run(signals.first(), [3.0, 1.0, 2.0])
    np.testing.assert_array_equal(outputs, [3, 3, 3])


def test_means_by_slot_are_those_before_the_update():
    signal = signals.means_by_slot(2)
    state, outputs = signal.init(), []
    for values, where in (([1.0, 9.0], [True, False]), ([3.0, 4.0], [True, True]), ([0.0, 0.0], [False, False])):
        output, state = signal.update((jnp.asarray(values), jnp.asarray(where)), state)
        outputs.append(output)
    np.testing.assert_array_equal(outputs, [[-1, -1], [1, -1], [2, 4]])


def test_entropy_controllers_move_towards_the_target():
    for rule in signals.ENTROPY_CONTROLLERS:
        controller = signals.entropy_controller(rule, target=1.0, rate=0.1, initial=0.5, maximum=2.0)
        low, high = (run(controller, [entropy] * 3)[0][-1] for entropy in (0.0, 3.0))
        assert low > 0.5 > high, rule
    with pytest.raises(errors.UserError, match="Unknown rule 'dual'. Did you mean 'log_dual'"):
        signals.entropy_controller("dual", target=1.0, rate=0.1)
    with pytest.raises(errors.UserError, match="initial must be above 0"):
        signals.log_dual_ascent(1.0, 0.1, initial=0.0)
