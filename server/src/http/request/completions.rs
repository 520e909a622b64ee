//! The body of `POST /v1/completions`.

use super::{Prompt, generation_request};

generation_request! {
    /// Prompts to continue.
    pub struct CompletionRequest {
        /// A text, a list of texts, a list of token ids, or a list of such lists.
        pub prompt: Prompt,
        /// Tokens of an answer, at most; 16 where none is named. 0 is possible: with `echo` and `logprobs` the prompt is
        /// scored and nothing else.
        pub max_tokens: Option<usize>,
        /// Whether the prompt stands before its answer, in the text and among the log-probabilities.
        pub echo: Option<bool>,
        /// Log-probabilities of the tokens, and of this many of the most probable ones in each place.
        #[schema(minimum = 0, maximum = 20)]
        pub logprobs: Option<usize>,
        /// Generates this many candidates for each prompt and answers with the `n` whose tokens are the most probable on
        /// average; at least `n`, and not with `stream`.
        #[schema(minimum = 1, maximum = 16)]
        pub best_of: Option<usize>,
        /// Not supported: only empty. The model continues text and does not fill gaps.
        #[schema(max_length = 0)]
        pub suffix: Option<String>,
    }
}
