"""The SGLang server that runs a refiner: prompts, the server process, its client."""
