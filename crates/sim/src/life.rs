//! One life of a process, from its start to its death.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Cheap to clone. Whoever works for the process looks here before it touches anything.
#[derive(Clone, Default)]
pub struct Life(Arc<(AtomicBool, Notify)>);

// Not `tokio::sync::watch`: it wakes its receivers in an order that it draws by itself.
impl Life {
    pub fn end(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    pub fn is_over(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Waits for the end.
    pub async fn over(&self) {
        let ended = self.0.1.notified();
        if !self.is_over() {
            ended.await;
        }
    }
}
