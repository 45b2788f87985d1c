"""Writes a tiny Llama with its tokenizer into a folder. It has no weights: vLLM makes random ones (--load-format dummy)."""

import json
import pathlib
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=["<s>", "</s>", "<pad>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
)
tokenizer.train_from_iterator(["hello world", "a tiny tokenizer for tests"] * 20, trainer)
tokenizer.save(str(folder / "tokenizer.json"))

special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
numbers = {"bos_token_id": 0, "eos_token_id": 1}
files = {
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "chat_template": "{% for m in messages %}{{m['role']}}: {{m['content']}}\n{% endfor %}assistant:",
        **special,
    },
    "special_tokens_map.json": special,
    "generation_config.json": numbers,
    "config.json": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": (tokenizer.get_vocab_size() + 63) // 64 * 64,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "pad_token_id": 2,
        "tie_word_embeddings": False,
        **numbers,
    },
}
for name, content in files.items():
    (folder / name).write_text(json.dumps(content))
