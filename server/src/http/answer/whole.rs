//! An answer as one body.

use axum::Json;
use axum::response::{IntoResponse, Response};

use super::{Answer, Head, Ranking, Running, Shape};
use crate::http::error::ApiError;
use crate::retrieval::Attribution;

/// One sequence as it comes in.
struct Candidate<P> {
    whole: P,
    /// The sum of its tokens' log-probabilities, and their number.
    logprob: f64,
    tokens: usize,
    attributions: Vec<Attribution>,
}

impl<P> Candidate<P> {
    /// The mean log-probability of a token. An answer without tokens is as probable as can be.
    fn rank(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.logprob / self.tokens as f64 }
    }
}

pub(super) async fn whole<S: Shape>(
    head: Head,
    mut running: Running<S>,
    ranking: Ranking,
) -> Result<Response, ApiError> {
    let mut unfinished = running.len();
    let mut candidates: Vec<Candidate<S::Piece>> = (0..unfinished)
        .map(|_| Candidate { whole: S::Piece::default(), logprob: 0.0, tokens: 0, attributions: Vec::new() })
        .collect();
    while unfinished > 0 {
        let advance = running.next().await?;
        unfinished -= usize::from(advance.finished);
        let candidate = &mut candidates[advance.index];
        if let Some(logprob) = advance.logprob {
            candidate.logprob += f64::from(logprob);
            candidate.tokens += 1;
        }
        S::append(&mut candidate.whole, advance.piece);
        candidate.attributions.extend(advance.attributions);
    }
    running.journal.finished();
    let (choices, attributions) = choices::<S>(candidates, ranking);
    let answer = Answer {
        object: S::OBJECT,
        choices,
        usage: Some(Some(running.usage())),
        moderation: running.moderation(),
        id: head.id,
        created: head.created,
        model: head.model,
        safelmm: Some(head.report.with(attributions)),
    };
    Ok(Json(answer).into_response())
}

/// The best candidates of each prompt, best first, and where they come from; all of them in their order where none is left
/// out.
fn choices<S: Shape>(candidates: Vec<Candidate<S::Piece>>, ranking: Ranking) -> (Vec<S::Choice>, Vec<Attribution>) {
    let mut candidates = candidates.into_iter().peekable();
    let (mut choices, mut attributions) = (Vec::new(), Vec::new());
    while candidates.peek().is_some() {
        let mut of_prompt: Vec<_> = candidates.by_ref().take(ranking.best_of).collect();
        if ranking.n < ranking.best_of {
            // A stable sort: among equals the one with the lower seed goes first.
            of_prompt.sort_by(|a, b| b.rank().total_cmp(&a.rank()));
            of_prompt.truncate(ranking.n);
        }
        for candidate in of_prompt {
            let choice = choices.len();
            attributions.extend(candidate.attributions.into_iter().map(|a| Attribution { choice, ..a }));
            choices.push(S::choice(choice, candidate.whole));
        }
    }
    (choices, attributions)
}
