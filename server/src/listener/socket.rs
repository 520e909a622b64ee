//! A client's socket that does not wait for ever.

use std::io;
use std::io::{ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Timeouts};

/// After the last answer: how long a body that nobody wants is still read. A socket that is closed with bytes unread
/// resets the connection, and the client might lose the answer that says why.
const LINGER: Duration = Duration::from_secs(2);

/// The socket, its timers, and where it says what it sees.
pub struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    timeouts: Timeouts,
    reading: Timer,
    writing: Timer,
    /// Until when the socket lingers, once it is shut down for writing.
    lingers_until: Option<Instant>,
}

impl Socket {
    /// A socket that was just accepted.
    pub fn new(stream: TcpStream, activity: Arc<Activity>, timeouts: Timeouts) -> Self {
        Socket { stream, activity, timeouts, reading: Timer::default(), writing: Timer::default(), lingers_until: None }
    }

    /// Passes on what a write came to; a client that takes nothing for too long is an error.
    fn written(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.activity.write_pending(polled.is_pending());
        if polled.is_ready() {
            self.writing.clear();
            return polled;
        }
        let deadline = self.writing.deadline().unwrap_or_else(|| Instant::now() + self.timeouts.write);
        ready!(self.writing.poll(deadline, cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if let Poll::Ready(outcome) = Pin::new(&mut this.stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                this.activity.received();
            }
            return Poll::Ready(outcome);
        }
        match this.activity.read_deadline(&this.timeouts) {
            Some(deadline) => {
                ready!(this.reading.poll(deadline, cx));
                Poll::Ready(Err(ErrorKind::TimedOut.into()))
            }
            None => {
                this.reading.clear();
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingers_until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.activity.body_unread() {
            return Poll::Ready(Ok(()));
        }
        let until = *this.lingers_until.get_or_insert_with(|| Instant::now() + LINGER);
        let mut discarded = [0; 8192];
        loop {
            if this.reading.poll(until, cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut discarded);
            let outcome = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf));
            if outcome.is_err() || buf.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// A timer that costs nothing until it is needed.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Timer {
    fn deadline(&self) -> Option<Instant> {
        self.sleep.as_ref().filter(|_| self.running).map(|sleep| sleep.deadline())
    }

    fn clear(&mut self) {
        self.running = false;
    }

    /// Ready once the deadline has passed; otherwise the task is woken then.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        self.running = true;
        sleep.as_mut().poll(cx)
    }
}
