"""Train from Python, load the policy, and let it adapt by hand, step by step, as a robot would.

python examples/train_and_load.py
"""

from pathlib import Path

import metarl


def main(output: str | Path = "runs/example", total_steps: int = 500_000, num_worlds: int = 64) -> float:
    """Returns what the last episode of a trial earned."""
    run = metarl.train(
        "rl2", "half-cheetah-dir", seed=1, output=output, total_steps=total_steps, num_worlds=num_worlds, show=True
    )
    print(metarl.evaluate(run, split="test", num_tasks=10).summary)

    policy = metarl.load(output)  # no simulator is built
    session = policy.session()  # keeps the adaptation state
    with metarl.make("half-cheetah-dir", num_worlds=1) as env:
        obs = env.begin(env.family.space.fixed("test", 1), key=0)
        session.new_task()
        earned = 0.0
        for _ in range(env.trial_steps):
            step = env.step(session.act(obs))
            session.observe(step.reward, step.final_obs, step.terminated)
            earned += float(step.reward[0])
            if bool(step.ended[0]):
                print(f"an episode earned {earned:.1f}")
                last, earned = earned, 0.0
                session.new_episode()  # what was learnt of the task stays
            obs = step.obs
    return last


if __name__ == "__main__":
    main()
