"""The page where a person goes through failures, explanations, hits and samples (`curator review`)."""
