"""Asks transformers for the greedy text of the demo: `python demo/make_transformers.py` writes demo/transformers.json."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECK = HERE.parent / "model/tests/fixtures/check_transformers.py"
PROMPTS = ["Once upon a time", "The old man looked at the sea", "", "Es war einmal", "人人生而自由", "1, 2, 3, "]
TOKENS = 48

answers = []
for prompt in PROMPTS:
    command = [sys.executable, CHECK, HERE / "checkpoint", prompt, str(TOKENS)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    answers.append({"prompt": prompt, "prompt_ids": said["prompt_ids"], "ids": said["ids"], "text": said["text"]})
(HERE / "transformers.json").write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
