"""The benchmark prints the line that the peers' scripts print."""

import json

from experiments import bench_grpo


def test_prints_the_peers_line(capsys):
    bench_grpo.main(["--steps=3", "--no-trim"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["peer"], line["task"], line["steps_timed"]) == ("rlx", "grpo", 1)
    assert 0 <= line["reward_first"] <= 1 and {"sample_cpu_s", "update_cpu_s", "cpu_s_per_step"} <= set(line)
