"""What the tasks ask: generators of prompts, with the strings that an answer must hold."""
