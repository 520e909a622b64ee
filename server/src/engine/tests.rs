//! The scheduler against a backend that stalls, fails and panics on demand.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use safelmm_model::FinishReason;

use super::*;

/// A sequence that yields its number until `left` is used up, and then may do harm.
struct Script {
    token: u32,
    left: usize,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Finish,
    Error,
    Panic,
}

fn script(token: u32, left: usize, end: End) -> Script {
    Script { token, left, end }
}

/// Steps only when the test says so, and reports the batch sizes.
struct Scripted {
    go: Mutex<Receiver<()>>,
    sizes: SyncSender<usize>,
}

impl Backend for Scripted {
    type Sequence = Script;

    fn step(&self, sequences: &mut [&mut Script]) -> Result<Vec<Step>, GenerateError> {
        self.sizes.send(sequences.len()).unwrap();
        self.go.lock().unwrap().recv().ok();
        sequences
            .iter_mut()
            .map(|script| {
                script.left -= 1;
                let last = script.left == 0;
                match script.end {
                    End::Panic if last => panic!("as the script says"),
                    End::Error if last => return Err(GenerateError::EmptyPrompt),
                    _ => {}
                }
                let finish = last.then_some(FinishReason::Length);
                Ok(Step { token: script.token, logprob: 0.0, text: String::new(), finish })
            })
            .collect()
    }
}

struct Bench {
    engine: Engine<Script>,
    go: SyncSender<()>,
    sizes: Receiver<usize>,
}

fn bench(queue: usize, max_batch: usize, request_timeout: Duration) -> Bench {
    let (go, go_receiver) = sync_channel(100);
    let (size_sender, sizes) = sync_channel(100);
    let backend = Scripted { go: Mutex::new(go_receiver), sizes: size_sender };
    let engine = Engine::start(backend, EngineConfig { queue, max_batch, request_timeout }).unwrap();
    Bench { engine, go, sizes }
}

const LONG: Duration = Duration::from_secs(60);

/// The tokens of a request by sequence, until it is over.
async fn tokens(ticket: &mut Ticket, sequences: usize) -> Result<Vec<Vec<u32>>, EngineError> {
    let mut tokens = vec![Vec::new(); sequences];
    let mut unfinished = sequences;
    while unfinished > 0 {
        if let Event::Token { index, step } = ticket.next().await? {
            tokens[index].push(step.token);
            unfinished -= usize::from(step.finish.is_some());
        }
    }
    Ok(tokens)
}

#[tokio::test]
async fn requests_join_the_running_batch_and_leave_it_when_they_finish() {
    let bench = bench(8, 3, LONG);
    let mut first = bench.engine.submit(vec![script(1, 3, End::Finish)]).unwrap();
    assert_eq!(bench.sizes.recv(), Ok(1));
    let mut second = bench.engine.submit((2..5).map(|n| script(n, 1, End::Finish)).collect()).unwrap();
    for _ in 0..10 {
        bench.go.send(()).unwrap();
    }
    assert_eq!(tokens(&mut second, 3).await, Ok(vec![vec![2], vec![3], vec![4]]));
    assert_eq!(tokens(&mut first, 1).await, Ok(vec![vec![1, 1, 1]]));
    // Beside the first request there are two places: the second request's third sequence comes a step later.
    assert_eq!((bench.sizes.recv(), bench.sizes.recv()), (Ok(3), Ok(2)));
    assert!(bench.sizes.try_recv().is_err());
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_waiting_client_that_left_makes_room() {
    let bench = bench(1, 1, LONG);
    let _running = bench.engine.submit(vec![script(1, 9, End::Finish)]).unwrap();
    assert_eq!(bench.sizes.recv(), Ok(1));
    let waiting = bench.engine.submit(vec![script(2, 1, End::Finish)]).unwrap();
    let refused = bench.engine.submit(vec![script(3, 1, End::Finish)]);
    assert_eq!(refused.unwrap_err(), EngineError::QueueFull { capacity: 1 });
    drop(waiting);
    assert!(bench.engine.submit(vec![script(4, 1, End::Finish)]).is_ok());
}

#[tokio::test]
async fn a_client_that_left_frees_its_place_within_one_step() {
    let bench = bench(4, 1, LONG);
    let leaving = bench.engine.submit(vec![script(1, 1000, End::Finish)]).unwrap();
    assert_eq!(bench.sizes.recv(), Ok(1));
    let mut next = bench.engine.submit(vec![script(2, 1, End::Finish)]).unwrap();
    drop(leaving);
    bench.go.send(()).unwrap(); // the step that was under way
    bench.go.send(()).unwrap();
    assert_eq!(tokens(&mut next, 1).await, Ok(vec![vec![2]]));
}

#[tokio::test]
async fn a_panic_or_an_error_ends_the_requests_of_that_step_and_no_others() {
    for end in [End::Panic, End::Error] {
        let bench = bench(4, 2, LONG);
        let mut bad = bench.engine.submit(vec![script(1, 2, end)]).unwrap();
        assert_eq!(bench.sizes.recv(), Ok(1));
        let mut beside = bench.engine.submit(vec![script(2, 9, End::Finish)]).unwrap();
        let mut after = bench.engine.submit(vec![script(3, 2, End::Finish)]).unwrap();
        for _ in 0..20 {
            bench.go.send(()).unwrap();
        }
        assert_eq!(tokens(&mut bad, 1).await, Err(EngineError::StepFailed));
        assert_eq!(tokens(&mut beside, 1).await, Err(EngineError::StepFailed));
        assert_eq!(tokens(&mut after, 1).await, Ok(vec![vec![3, 3]]));
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_told_so_even_when_a_step_hangs() {
    let limit = Duration::from_millis(50);
    let bench = bench(4, 1, limit);
    let mut slow = bench.engine.submit(vec![script(1, 5, End::Finish)]).unwrap();
    assert_eq!(tokens(&mut slow, 1).await, Err(EngineError::Timeout { limit }));
}

#[tokio::test]
async fn closing_finishes_what_is_there_and_aborting_does_not() {
    let bench = bench(4, 1, LONG);
    let mut running = bench.engine.submit(vec![script(1, 2, End::Finish)]).unwrap();
    let mut waiting = bench.engine.submit(vec![script(2, 9, End::Finish)]).unwrap();
    assert_eq!(bench.sizes.recv(), Ok(1));
    bench.engine.close();
    assert_eq!(bench.engine.submit(vec![]).unwrap_err(), EngineError::Stopped);
    bench.go.send(()).unwrap();
    bench.go.send(()).unwrap();
    assert_eq!(tokens(&mut running, 1).await, Ok(vec![vec![1, 1]]));
    bench.engine.abort();
    bench.go.send(()).unwrap();
    assert_eq!(tokens(&mut waiting, 1).await, Err(EngineError::Stopped));
    bench.engine.join();
}
