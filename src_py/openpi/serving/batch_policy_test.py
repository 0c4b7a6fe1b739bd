from openpi.serving.batch_policy import BatchPolicy


class Sizes:
    def __init__(self):
        self.seen = []

    def infer(self, obs):
        if isinstance(obs, dict):
            self.seen.append(1)
            return {"n": obs["n"]}
        self.seen.append(len(obs))
        return [{"n": one["n"]} for one in obs]


def test_batches_are_filled_up_and_results_keep_their_order():
    policy = Sizes()
    results = BatchPolicy(policy, sizes=(2, 4)).infer_batch([{"n": n} for n in range(7)])
    assert [result["n"] for result in results] == list(range(7))
    assert policy.seen == [4, 4]


def test_warm_up_meets_every_size():
    policy = Sizes()
    BatchPolicy(policy, sizes=(1, 2, 4)).warm_up({"n": 0})
    assert policy.seen == [1, 2, 4]
