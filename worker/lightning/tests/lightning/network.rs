//! A network in memory, whose time is the runtime's: with a paused clock, minutes pass in no time.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lightning::{Network, Stream};
use mock_lightning::MockLightning;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes on their way, with when they arrive.
type InTransit = (Instant, Vec<u8>);

/// A network in which bytes take `latency` to the double and as long back.
pub(crate) fn to(mock: &MockLightning, latency: Duration) -> Network {
    let connector = mock.connector().expect("the double is in memory");
    Network::new(move |_| {
        let far = connector.connect()?;
        let stream: Box<dyn Stream> = if latency.is_zero() { Box::new(far) } else { Box::new(delayed(far, latency)) };
        Ok(stream)
    })
}

/// The near end of a pipe whose bytes take a while.
fn delayed(far: DuplexStream, latency: Duration) -> DuplexStream {
    let (near, inner) = duplex(256 * 1024);
    let ((from_near, to_near), (from_far, to_far)) = (split(inner), split(far));
    tokio::spawn(carry(from_near, to_far, latency));
    tokio::spawn(carry(from_far, to_near, latency));
    near
}

async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, latency: Duration) {
    let (sender, mut in_transit) = mpsc::channel::<InTransit>(64);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + latency, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = in_transit.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

/// What a worker wrote to its log.
#[derive(Clone, Default)]
pub(crate) struct WorkerLog(Arc<Mutex<Vec<u8>>>);

impl WorkerLog {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The lines that hold all of `parts`.
    pub(crate) fn lines_with(&self, parts: &[&str]) -> Vec<String> {
        self.text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(Into::into).collect()
    }
}

impl io::Write for WorkerLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a test whose clock jumps to the next timer whenever nobody has anything to do. The test gets the worker's log.
pub(crate) fn simulate<F: Future>(test: impl FnOnce(WorkerLog) -> F) -> F::Output {
    let log = WorkerLog::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tracing::subscriber::with_default(subscriber, || runtime.block_on(test(log)))
}
