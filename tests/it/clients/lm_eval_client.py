"""What users of lm-evaluation-harness do: `lm_eval_client.py BASE_URL MODEL FOLDER`.

The same tasks are run by the harness's own backend for `transformers` on the checkpoint folder, and over HTTP in several
ways. Over HTTP every number is the same bit for bit, whichever way it was asked for; beside `transformers`, the
log-likelihoods agree within 1e-3, and everything that is decided by them agrees.
"""

import hashlib
import os
import sys

base, model, folder = sys.argv[1:]
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
tasks_folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lm_eval_tasks")
os.chdir(tasks_folder)  # the tasks name their data beside them

import lm_eval
from lm_eval.models import api_models
from lm_eval.tasks import TaskManager

TASKS = ["safelmm_choices", "safelmm_last_words", "safelmm_texts", "safelmm_endings"]
manager = TaskManager(include_path=tasks_folder, include_defaults=False)


def evaluate(backend, arguments, tasks=TASKS, batch_size=1):
    """The scores, and what was answered to every request of every task."""
    result = lm_eval.simple_evaluate(
        backend, arguments, tasks=tasks, task_manager=manager, batch_size=batch_size, log_samples=True, bootstrap_iters=0
    )
    scores = {task: {k: v for k, v in result["results"][task].items() if "stderr" not in k} for task in tasks}
    answers = {
        task: [[answers[0] for answers in sample["resps"]] for sample in sorted(samples, key=lambda s: s["doc_id"])]
        for task, samples in result["samples"].items()
    }
    return scores, answers


def http(tasks=TASKS, batch_size=1, **arguments):
    arguments = {
        "model": model,
        "base_url": f"{base}/v1/completions",
        "tokenizer": folder,
        "tokenizer_backend": "huggingface",
        "max_length": 512,
        "max_retries": 1,
        **arguments,
    }
    return evaluate("local-completions", arguments, tasks, batch_size)


def in_another_order():
    """The harness asks for the longest texts first; here the order is that of a hash."""
    usual = api_models.Collator

    def shuffled(requests, sort_fn, **options):
        return usual(requests, sort_fn=lambda request: hashlib.sha256(str(request).encode()).digest(), **options)

    api_models.Collator = shuffled
    try:
        return http()
    finally:
        api_models.Collator = usual


def equal_to(reference):
    """Compares with what transformers says; the greatest difference of a log-likelihood."""
    (scores, answers), (their_scores, their_answers) = alone, reference
    worst, compared, greedy = 0.0, 0, set()
    for task in TASKS:
        for mine, theirs in zip(answers[task], their_answers[task], strict=True):
            for a, b in zip(mine, theirs, strict=True):
                if task == "safelmm_endings":
                    assert a == b and a, (task, a, b)
                    continue
                if task == "safelmm_texts":
                    a, b = (a, False), (b, False)
                worst, compared = max(worst, abs(a[0] - b[0])), compared + 1
                greedy.add(a[1])
                assert a[1] == b[1], (task, a, b)
    assert worst <= 1e-3, f"log-likelihoods differ by {worst}"
    assert compared >= 40 and greedy == {False, True}, f"{compared} log-likelihoods, greedy {greedy}"
    for name in ["acc,none", "acc_norm,none"]:
        assert scores["safelmm_choices"][name] == their_scores["safelmm_choices"][name], name
    assert scores["safelmm_last_words"]["acc,none"] == their_scores["safelmm_last_words"]["acc,none"]
    return worst


alone = http()
for way, again in {
    "four requests at once": lambda: http(num_concurrent=4),
    "three prompts in a request": lambda: http(batch_size=3),
    "another order": in_another_order,
    # The server tokenizes. It never reads a control token out of text, so that the harness cannot ask it for the id of the
    # token that stands before a whole text.
    "the server's tokenizer": lambda: http(tokenizer=None, tokenizer_backend="remote", custom_prefix_token_id=0),
}.items():
    assert again() == alone, way
theirs = evaluate("hf", {"pretrained": folder, "dtype": "float32", "device": "cpu"})
print(f"the greatest difference of a log-likelihood: {equal_to(theirs):.1e}")
