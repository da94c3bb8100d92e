//! The signals by which the system or a person asks the program to end. What it does then is left to its commands.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// TERM, and HUP where the terminal goes away.
pub(crate) struct Termination {
    terminate: Signal,
    /// Not there where whoever started the program has it ignored, as `nohup` does.
    hangup: Option<Signal>,
}

impl Termination {
    /// Begins to listen. What comes from now on is not lost.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Termination { terminate: signal(SignalKind::terminate())?, hangup })
    }

    /// Waits for one of them.
    pub(crate) async fn recv(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Tells whether HUP is ignored, as far as the system says; where it does not say, it stays as it is.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (rustix::process::Signal::HUP.as_raw() - 1)) != 0)
}
