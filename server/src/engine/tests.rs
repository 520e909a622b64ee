//! The scheduler against a backend that stalls, fails and panics on demand.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use safelmm_model::{FinishReason, GenerateError, Step, TokenLogprob};

use super::*;

/// A sequence that has a prompt of some tokens and then yields its number until `left` is used up, and may then do harm.
struct Script {
    token: u32,
    prompt: usize,
    left: usize,
    /// Tokens that come before it anew after its first token.
    again: usize,
    end: End,
    /// Memory it takes.
    blocks: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Finish,
    /// Of the whole step.
    Error,
    /// Of this sequence.
    Alone,
    Panic,
}

fn script(token: u32, left: usize, end: End) -> Script {
    Script { token, prompt: 0, left, again: 0, end, blocks: 0 }
}

/// Steps only when the test says so, and reports what each sequence may run.
struct Scripted {
    go: Receiver<()>,
    portions: SyncSender<Vec<usize>>,
    free: usize,
}

impl Backend for Scripted {
    type Sequence = Script;

    fn start(&mut self, script: &mut Script) -> Started {
        if script.blocks > self.free {
            return Started::NoRoom;
        }
        self.free -= script.blocks;
        Started::Running { cached_tokens: 0 }
    }

    fn pending(&self, script: &Script) -> Pending {
        if script.prompt > 0 { Pending::Prompt(script.prompt) } else { Pending::Token }
    }

    fn step(&mut self, work: &mut [(&mut Script, usize)]) -> Stepped {
        self.portions.send(work.iter().map(|(_, tokens)| *tokens).collect()).unwrap();
        self.go.recv().ok();
        let mut freed = 0;
        let mut broken = None;
        let results = work
            .iter_mut()
            .map(|(script, tokens)| {
                if script.prompt > *tokens {
                    script.prompt -= *tokens;
                    return Ok(Progress::default());
                }
                script.prompt = std::mem::take(&mut script.again);
                script.left -= 1;
                let last = script.left == 0;
                match script.end {
                    End::Panic if last => panic!("as the script says"),
                    End::Error if last => broken = Some(GenerateError::EmptyPrompt),
                    End::Alone if last => return Err(GenerateError::EmptyPrompt),
                    _ => {}
                }
                freed += if last { script.blocks } else { 0 };
                let token = TokenLogprob { token: script.token, logprob: 0.0, top: Vec::new() };
                let step = Some(Step { token, text: String::new() });
                Ok(Progress { step, finish: last.then_some(FinishReason::Length), ..Progress::default() })
            })
            .collect();
        self.free += freed;
        broken.map_or(Ok(results), Err)
    }
}

struct Bench {
    engine: Engine<Script>,
    go: SyncSender<()>,
    portions: Receiver<Vec<usize>>,
}

impl Bench {
    fn submit(&self, scripts: Vec<Script>) -> Result<Ticket, EngineError> {
        let tokens = scripts.iter().map(|script| script.prompt + script.left).sum();
        self.engine.submit(scripts, tokens)
    }

    fn go(&self, steps: usize) {
        for _ in 0..steps {
            self.go.send(()).unwrap();
        }
    }

    fn size(&self) -> usize {
        self.portions.recv().unwrap().len()
    }
}

fn config() -> EngineConfig {
    let request_timeout = Duration::from_secs(60);
    EngineConfig { queue: 8, queue_tokens: 10_000, max_batch: 3, prefill_chunk: 12, request_timeout }
}

fn bench(config: EngineConfig) -> Bench {
    let (go, go_receiver) = sync_channel(1000);
    let (sender, portions) = sync_channel(1000);
    let backend = Scripted { go: go_receiver, portions: sender, free: 10 };
    Bench { engine: Engine::start(backend, config, Metrics::default()).unwrap(), go, portions }
}

/// The tokens of a request by sequence, until it is over.
async fn tokens(ticket: &mut Ticket, sequences: usize) -> Result<Vec<Vec<u32>>, EngineError> {
    let mut tokens = vec![Vec::new(); sequences];
    let mut unfinished = sequences;
    while unfinished > 0 {
        if let Event::Progress { index, progress } = ticket.next().await? {
            tokens[index].extend(progress.step.map(|step| step.token.token));
            unfinished -= usize::from(progress.finish.is_some());
        }
    }
    Ok(tokens)
}

#[tokio::test]
async fn requests_join_the_running_batch_and_leave_it_when_they_finish() {
    let bench = bench(config());
    let mut first = bench.submit(vec![script(1, 3, End::Finish)]).unwrap();
    assert_eq!(bench.size(), 1);
    let mut second = bench.submit((2..5).map(|n| script(n, 1, End::Finish)).collect()).unwrap();
    bench.go(10);
    assert_eq!(tokens(&mut second, 3).await, Ok(vec![vec![2], vec![3], vec![4]]));
    assert_eq!(tokens(&mut first, 1).await, Ok(vec![vec![1, 1, 1]]));
    // Beside the first request there are two places: the second request's third sequence comes a step later.
    assert_eq!((bench.size(), bench.size()), (3, 2));
    assert!(bench.portions.try_recv().is_err());
}

#[tokio::test]
async fn a_long_prompt_holds_up_neither_running_answers_nor_short_prompts() {
    let bench = bench(config());
    let mut running = bench.submit(vec![script(1, 9, End::Finish)]).unwrap();
    assert_eq!(bench.portions.recv(), Ok(vec![1]));
    let mut long = bench.submit(vec![Script { prompt: 30, ..script(2, 1, End::Finish) }]).unwrap();
    bench.go(1);
    assert_eq!(bench.portions.recv(), Ok(vec![1, 12]), "the long prompt may take the whole chunk of a step");
    let mut short = bench.submit(vec![Script { prompt: 4, ..script(3, 2, End::Finish) }]).unwrap();
    bench.go(20);
    assert_eq!(
        bench.portions.recv(),
        Ok(vec![1, 8, 4]),
        "the short one gets its part, the long one what is left of it"
    );
    assert_eq!(bench.portions.recv(), Ok(vec![1, 10, 1]));
    assert_eq!(tokens(&mut short, 1).await, Ok(vec![vec![3, 3]]));
    assert_eq!(tokens(&mut long, 1).await, Ok(vec![vec![2]]));
    assert_eq!(tokens(&mut running, 1).await, Ok(vec![vec![1; 9]]));
}

/// As when other passages come before a text.
#[tokio::test]
async fn a_prompt_that_comes_again_takes_its_part_of_the_chunk_again() {
    let bench = bench(config());
    let mut running = bench.submit(vec![script(1, 9, End::Finish)]).unwrap();
    assert_eq!(bench.portions.recv(), Ok(vec![1]));
    let mut again = bench.submit(vec![Script { prompt: 5, again: 20, ..script(2, 2, End::Finish) }]).unwrap();
    bench.go(20);
    let portions: Vec<_> = (0..4).map(|_| bench.portions.recv().unwrap()).collect();
    assert_eq!(portions, [vec![1, 5], vec![1, 12], vec![1, 8], vec![1]]);
    assert_eq!(tokens(&mut again, 1).await, Ok(vec![vec![2, 2]]));
    assert_eq!(tokens(&mut running, 1).await, Ok(vec![vec![1; 9]]));
}

#[tokio::test]
async fn a_sequence_waits_for_memory_and_one_that_can_never_have_it_is_told() {
    let bench = bench(config());
    let sized = |token, blocks| Script { blocks, ..script(token, 2, End::Finish) };
    let mut first = bench.submit(vec![sized(1, 8)]).unwrap();
    assert_eq!(bench.size(), 1);
    let mut second = bench.submit(vec![sized(2, 8)]).unwrap();
    bench.go(10);
    assert_eq!(tokens(&mut first, 1).await, Ok(vec![vec![1, 1]]));
    assert_eq!(tokens(&mut second, 1).await, Ok(vec![vec![2, 2]]));
    assert!(bench.portions.try_iter().all(|portions| portions.len() == 1));
    let mut never = bench.submit(vec![sized(3, 11)]).unwrap();
    assert_eq!(tokens(&mut never, 1).await, Err(EngineError::TooLarge));
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_waiting_client_that_left_makes_room() {
    let bench = bench(EngineConfig { queue: 1, max_batch: 1, ..config() });
    let _running = bench.submit(vec![script(1, 9, End::Finish)]).unwrap();
    assert_eq!(bench.size(), 1);
    let waiting = bench.submit(vec![script(2, 1, End::Finish)]).unwrap();
    let refused = bench.submit(vec![script(3, 1, End::Finish)]).unwrap_err();
    assert!(matches!(refused, EngineError::QueueFull { retry_after } if retry_after >= Duration::from_secs(1)));
    drop(waiting);
    assert!(bench.submit(vec![script(4, 1, End::Finish)]).is_ok());
}

#[tokio::test]
async fn the_queue_is_bounded_by_tokens_too() {
    let bench = bench(EngineConfig { queue_tokens: 100, max_batch: 1, ..config() });
    let _running = bench.submit(vec![script(1, 9, End::Finish)]).unwrap();
    assert_eq!(bench.size(), 1);
    let _waiting = bench.submit(vec![Script { prompt: 60, ..script(2, 1, End::Finish) }]).unwrap();
    let large = bench.submit(vec![Script { prompt: 60, ..script(3, 1, End::Finish) }]);
    assert!(matches!(large, Err(EngineError::QueueFull { .. })));
    assert!(bench.submit(vec![script(4, 1, End::Finish)]).is_ok());
}

#[tokio::test]
async fn a_client_that_left_frees_its_place_within_one_step() {
    let bench = bench(EngineConfig { max_batch: 1, ..config() });
    let leaving = bench.submit(vec![script(1, 1000, End::Finish)]).unwrap();
    assert_eq!(bench.size(), 1);
    let mut next = bench.submit(vec![script(2, 1, End::Finish)]).unwrap();
    drop(leaving);
    bench.go(2); // the step that was under way, and the next client's
    assert_eq!(tokens(&mut next, 1).await, Ok(vec![vec![2]]));
}

#[tokio::test]
async fn a_panic_or_an_error_ends_the_requests_of_that_step_and_no_others() {
    for end in [End::Panic, End::Error] {
        let bench = bench(EngineConfig { max_batch: 2, ..config() });
        let mut bad = bench.submit(vec![script(1, 2, end)]).unwrap();
        assert_eq!(bench.size(), 1);
        let mut beside = bench.submit(vec![script(2, 9, End::Finish)]).unwrap();
        let mut after = bench.submit(vec![script(3, 2, End::Finish)]).unwrap();
        bench.go(20);
        assert_eq!(tokens(&mut bad, 1).await, Err(EngineError::StepFailed));
        assert_eq!(tokens(&mut beside, 1).await, Err(EngineError::StepFailed));
        assert_eq!(tokens(&mut after, 1).await, Ok(vec![vec![3, 3]]));
    }
}

#[tokio::test]
async fn a_sequence_that_cannot_go_on_ends_alone() {
    let bench = bench(EngineConfig { max_batch: 2, ..config() });
    let mut bad = bench.submit(vec![script(1, 2, End::Alone)]).unwrap();
    assert_eq!(bench.size(), 1);
    let mut beside = bench.submit(vec![script(2, 3, End::Finish)]).unwrap();
    bench.go(20);
    assert_eq!(tokens(&mut bad, 1).await, Err(EngineError::CannotGoOn));
    assert_eq!(tokens(&mut beside, 1).await, Ok(vec![vec![2, 2, 2]]));
}

#[tokio::test]
async fn requests_take_turns_and_none_is_passed_by_for_ever() {
    let bench = bench(EngineConfig { queue: 100, max_batch: 1, ..config() });
    let _running = bench.submit(vec![script(9, 1, End::Finish)]).unwrap();
    assert_eq!(bench.size(), 1);
    let mut many = bench.submit((0..3).map(|n| script(n, 1, End::Finish)).collect()).unwrap();
    let mut others: Vec<Ticket> = (0..6).map(|n| bench.submit(vec![script(10 + n, 1, End::Finish)]).unwrap()).collect();
    // Its three sequences have had their turns when three of the others have.
    bench.go(7);
    assert_eq!(tokens(&mut many, 3).await, Ok(vec![vec![0], vec![1], vec![2]]));
    bench.go(20);
    for (n, other) in others.iter_mut().enumerate() {
        assert_eq!(tokens(other, 1).await, Ok(vec![vec![10 + n as u32]]));
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_told_so_even_when_a_step_hangs() {
    let limit = Duration::from_millis(50);
    let bench = bench(EngineConfig { request_timeout: limit, ..config() });
    let mut slow = bench.submit(vec![script(1, 5, End::Finish)]).unwrap();
    assert_eq!(tokens(&mut slow, 1).await, Err(EngineError::Timeout { limit }));
}

#[tokio::test]
async fn closing_finishes_what_is_there_and_aborting_does_not() {
    let bench = bench(EngineConfig { max_batch: 1, ..config() });
    let mut running = bench.submit(vec![script(1, 2, End::Finish)]).unwrap();
    let mut waiting = bench.submit(vec![script(2, 9, End::Finish)]).unwrap();
    assert_eq!(bench.size(), 1);
    bench.engine.close();
    assert_eq!(bench.submit(vec![]).unwrap_err(), EngineError::Stopped);
    bench.go(2);
    assert_eq!(tokens(&mut running, 1).await, Ok(vec![vec![1, 1]]));
    bench.engine.abort();
    bench.go(1);
    assert_eq!(tokens(&mut waiting, 1).await, Err(EngineError::Stopped));
    bench.engine.join();
}
