//! How far the run is: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines come no more often than this.
const PAUSE: Duration = Duration::from_secs(10);
/// The bar is drawn anew so often, however long a step takes.
const TICK: Duration = Duration::from_millis(250);

/// Shows the progress of one stage on standard error.
pub(crate) struct Progress {
    first_step: u64,
    total: u64,
    started: Instant,
    display: Display,
}

enum Display {
    Quiet,
    Bar(ProgressBar),
    Lines(Lines),
}

/// Lines to a file or a pipe.
struct Lines {
    out: Box<dyn Write + Send>,
    last: Option<Instant>,
    /// The newest line, while it is not written.
    pending: Option<String>,
}

impl Progress {
    /// `first_step` steps of `total` are done already, by an earlier part of a run that is continued. `quiet` shows nothing.
    pub(crate) fn new(first_step: u64, total: u64, quiet: bool) -> Progress {
        let display = if quiet {
            Display::Quiet
        } else if stderr().is_terminal() {
            Display::Bar(bar(first_step, total))
        } else {
            Display::Lines(Lines { out: Box::new(stderr()), last: None, pending: None })
        };
        Progress { first_step, total, started: Instant::now(), display }
    }

    /// `step` steps are done: the bar moves with each, its words with each log.
    pub(crate) fn at(&mut self, step: u64) {
        if let Display::Bar(bar) = &self.display {
            bar.set_position(step);
        }
    }

    /// `step` steps and `epoch` epochs are done; `loss` is left out until it is known.
    pub(crate) fn update(&mut self, step: u64, epoch: f64, loss: Option<f64>, images_per_second: f64) {
        let now = Instant::now();
        let left = eta(now - self.started, step.saturating_sub(self.first_step), self.total.saturating_sub(step));
        let state = state(epoch, loss, images_per_second, left);
        match &mut self.display {
            Display::Quiet => {}
            Display::Bar(bar) => {
                bar.set_message(state);
                bar.set_position(step);
            }
            Display::Lines(lines) => lines.offer(format!("step {step}/{}  {state}", self.total), now),
        }
    }

    /// A line of its own, above the bar.
    pub(crate) fn println(&mut self, text: &str) {
        match &mut self.display {
            Display::Quiet => {}
            Display::Bar(bar) => bar.println(text),
            Display::Lines(lines) => lines.write(text),
        }
    }

    /// The last state stays on the screen, in a line of its own. Also right for a run that stops early.
    pub(crate) fn finish(&mut self) {
        match &mut self.display {
            Display::Quiet => {}
            Display::Bar(bar) if bar.is_finished() => {}
            Display::Bar(bar) => {
                bar.abandon();
                // The bar leaves the cursor at its end.
                let _ = writeln!(stderr());
            }
            Display::Lines(lines) => lines.finish(),
        }
    }
}

impl Lines {
    fn offer(&mut self, line: String, now: Instant) {
        if self.last.is_none_or(|last| now - last >= PAUSE) {
            self.last = Some(now);
            self.pending = None;
            self.write(&line);
        } else {
            self.pending = Some(line);
        }
    }

    fn finish(&mut self) {
        if let Some(line) = self.pending.take() {
            self.write(&line);
        }
    }

    /// A closed standard error must not end the training, so failures are passed over.
    fn write(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}");
    }
}

fn bar(first_step: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(first_step);
    // The template is fixed, so it is either always sound or never; the plain style is as good a bar.
    let style = ProgressStyle::with_template("{spinner} {wide_bar:.blue/dim} {pos}/{len}  {msg}");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.tick();
    bar.enable_steady_tick(TICK);
    bar
}

/// `epoch 0.43  loss 0.211  8123 images/s  ETA 1m 12s`
fn state(epoch: f64, loss: Option<f64>, images_per_second: f64, left: Option<Duration>) -> String {
    let mut parts = vec![format!("epoch {epoch:.2}")];
    parts.extend(loss.map(|loss| match loss.abs() {
        size if size > 0.0 && !(0.001..10_000.0).contains(&size) => format!("loss {loss:.2e}"),
        _ => format!("loss {loss:.3}"),
    }));
    let decimals = if images_per_second < 10.0 { 1 } else { 0 };
    parts.push(format!("{images_per_second:.decimals$} images/s"));
    parts.extend(left.map(|left| format!("ETA {}", duration(left))));
    parts.join("  ")
}

/// The time left at this session's mean pace, evaluations included; nothing before the first step.
fn eta(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    let seconds = elapsed.as_secs_f64() * left as f64 / done as f64;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The two largest units: `2d 3h`, `1h 05m`, `1m 12s`, `9s`.
fn duration(length: Duration) -> String {
    let seconds = length.as_secs_f64().round() as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        86_400.. => format!("{days}d {hours}h"),
        3600.. => format!("{hours}h {minutes:02}m"),
        60.. => format!("{minutes}m {:02}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(written: &Written) -> Lines {
        Lines { out: Box::new(written.clone()), last: None, pending: None }
    }

    fn text(written: &Written) -> String {
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_come_every_ten_seconds_and_at_the_end() {
        let written = Written::default();
        let mut lines = lines(&written);
        let start = Instant::now();
        for second in 0..26 {
            lines.offer(format!("{second}"), start + Duration::from_secs(second));
        }
        lines.finish();
        lines.finish();
        assert_eq!(text(&written), "0\n10\n20\n25\n");
    }

    #[test]
    fn a_line_tells_the_whole_state() {
        let written = Written::default();
        let display = Display::Lines(lines(&written));
        let mut progress = Progress { first_step: 0, total: 9380, started: Instant::now(), display };
        progress.println("hello");
        progress.update(400, 0.426, Some(0.2113), 8123.4);
        let text = text(&written);
        assert!(text.starts_with("hello\nstep 400/9380  epoch 0.43  loss 0.211  8123 images/s  ETA "), "{text}");
    }

    #[test]
    fn states_read_well() {
        assert_eq!(state(0.0, None, 3.52, None), "epoch 0.00  3.5 images/s");
        let left = Some(Duration::from_secs(72));
        assert_eq!(state(0.426, Some(0.2113), 8123.4, left), "epoch 0.43  loss 0.211  8123 images/s  ETA 1m 12s");
        assert_eq!(state(1.0, Some(0.000_21), 20.0, None), "epoch 1.00  loss 2.10e-4  20 images/s");
        assert_eq!(state(1.0, Some(f64::NAN), 20.0, None), "epoch 1.00  loss NaN  20 images/s");
        let lengths = [9, 59, 60, 3599, 3600, 86_399, 183_600].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(lengths, ["9s", "59s", "1m 00s", "59m 59s", "1h 00m", "23h 59m", "2d 3h"]);
    }

    #[test]
    fn the_time_left_follows_the_pace_of_this_session() {
        assert_eq!(eta(Duration::from_secs(10), 100, 300), Some(Duration::from_secs(30)));
        assert_eq!(eta(Duration::from_secs(10), 100, 0), Some(Duration::ZERO));
        assert_eq!(eta(Duration::from_secs(10), 0, 300), None);
        assert_eq!(eta(Duration::ZERO, 0, 300), None);
    }
}
