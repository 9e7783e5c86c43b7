//! Threads that decode ahead of the step, and put what they made back into order.
//!
//! Tasks go out with a number each, at most so many at a time; results come back in any order and are handed on by number. So memory is
//! bounded by the buffers of the tasks that are out, and what comes out depends on neither the number of threads nor their pace.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::decode::{CHANNELS, Scratch};
use super::index::{Index, Shards};
use super::view::{TestView, TrainView};
use crate::data::Flip;
use crate::data::augment::salted;
use crate::random::rng;
use crate::{Error, Result};

/// Pictures of a task.
pub(super) const CHUNK: usize = 8;

/// Squares out of the pictures of a split.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) index: Index,
    pub(super) view: Cutting,
    /// Edge of the squares.
    pub(super) edge: u32,
    /// Bad pictures that are put up with.
    pub(super) max_bad: u64,
}

/// How pictures are cut.
#[derive(Debug)]
pub(super) enum Cutting {
    /// By chance.
    Train(TrainView),
    /// Without chance.
    Test(TestView),
}

/// What the squares of training pictures are drawn from.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub(super) seed: u64,
    pub(super) epoch: u64,
    /// For each view of a picture the salt of its draws, and the flip, if it is done here.
    pub(super) views: Arc<[(String, Option<Flip>)]>,
}

/// A few pictures to read, one after the other in an order.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// The numbers of all pictures of the epoch or the evaluation.
    pub(super) order: Arc<[i64]>,
    /// The first place in it, and how many.
    pub(super) places: (usize, usize),
    /// In training; a picture that is bad is replaced then by the next in the order that is not, and left out otherwise.
    pub(super) draws: Option<Drawn>,
    /// Whether a batch ends with it.
    pub(super) last: bool,
}

impl Task {
    /// The pictures at the places `range` without chance, in their own order; every `batch` places a batch ends.
    pub(super) fn in_order(range: Range<u64>, batch: usize) -> impl Iterator<Item = Task> {
        let order: Arc<[i64]> = (range.start as i64..range.end as i64).collect();
        (0..order.len()).step_by(batch).flat_map(move |start| {
            let order = order.clone();
            chunks(start, (start + batch).min(order.len())).map(move |(places, last)| Task {
                order: order.clone(),
                places,
                draws: None,
                last,
            })
        })
    }
}

/// The places from `start` to before `end` in tasks: the first and how many, and whether they are the last.
pub(super) fn chunks(start: usize, end: usize) -> impl Iterator<Item = ((usize, usize), bool)> {
    (start..end).step_by(CHUNK).map(move |at| ((at, CHUNK.min(end - at)), at + CHUNK >= end))
}

/// What became of a task.
#[derive(Debug)]
pub(super) struct Done {
    /// For each view a block of [`Self::places`] squares, `edge` × `edge` × 3 bytes each; those beyond the samples are old.
    pub(super) squares: Vec<u8>,
    /// Squares in a block.
    pub(super) places: usize,
    /// The epoch that the pictures are seen in; 0 without one.
    pub(super) epoch: u64,
    /// The number of each picture.
    pub(super) samples: Vec<i64>,
    /// The places of pictures that are bad, and why.
    pub(super) bad: Vec<(i64, String)>,
    /// Whether a batch ends with it.
    pub(super) last: bool,
}

/// A worker's own buffers.
#[derive(Debug, Default)]
pub(super) struct Worker {
    scratch: Scratch,
    shards: Shards,
}

impl Reader {
    pub(super) fn square_bytes(&self) -> usize {
        (self.edge * self.edge) as usize * CHANNELS
    }

    /// The place in the set of the picture of this number; see [`crate::data::Draws::samples`].
    pub(super) fn place(&self, number: i64) -> i64 {
        number % self.index.len() as i64
    }

    /// Fills each of `squares` with a view of the picture of this number, which is decoded once.
    ///
    /// # Errors
    /// Why the picture is bad.
    pub(super) fn read<'a>(
        &self,
        number: i64,
        draws: Option<&Drawn>,
        worker: &mut Worker,
        squares: impl Iterator<Item = &'a mut [u8]>,
    ) -> Result<(), String> {
        self.index.read(self.place(number), &mut worker.shards, &mut worker.scratch.file)?;
        match (&self.view, draws) {
            (Cutting::Train(view), Some(Drawn { seed, epoch, views })) => {
                let stream = |name, salt: &str| rng(*seed, *epoch, number as u64, &salted(name, salt));
                let cut = |place: usize, size| {
                    let (salt, flip) = &views[place];
                    let mirrored = flip.as_ref().is_some_and(|flip| flip.draw(&mut stream("flip", salt)));
                    (view.cut(size, self.edge, &mut stream("view", salt)), mirrored)
                };
                worker.scratch.squares(squares, self.edge, view.filter(), cut)
            }
            (Cutting::Test(view), _) => {
                let cut = |_, size| (view.cut(size, self.edge), false);
                worker.scratch.squares(squares, self.edge, view.filter(), cut)
            }
            (Cutting::Train(_), None) => unreachable!("a training picture without a seed"),
        }
    }

    /// Works off a task; `at` tells which picture is in hand, `stop` ends it early.
    fn work(&self, task: &Task, worker: &mut Worker, mut squares: Vec<u8>, at: &AtomicI64, stop: &AtomicBool) -> Done {
        let size = self.square_bytes();
        let (first, count) = task.places;
        let (views, epoch) = task.draws.as_ref().map_or((1, 0), |draws| (draws.views.len(), draws.epoch));
        squares.resize(views * count * size, 0);
        let (mut samples, mut bad) = (Vec::with_capacity(count), Vec::new());
        'places: for place in first..first + count {
            for next in 0..task.order.len() {
                if stop.load(Ordering::Relaxed) {
                    break 'places;
                }
                let number = task.order[(place + next) % task.order.len()];
                let sample = self.place(number);
                if bad.iter().any(|(known, _)| *known == sample) {
                    continue;
                }
                at.store(sample, Ordering::Relaxed);
                let own = samples.len() * size..(samples.len() + 1) * size;
                let own = squares.chunks_exact_mut(count * size).map(|block| &mut block[own.clone()]);
                match self.read(number, task.draws.as_ref(), worker, own) {
                    Ok(()) => {
                        samples.push(number);
                        break;
                    }
                    Err(reason) => bad.push((sample, reason)),
                }
                if task.draws.is_none() {
                    break;
                }
                if bad.len() as u64 > self.max_bad {
                    // So many are refused: nobody waits for the rest.
                    break 'places;
                }
            }
        }
        Done { squares, places: count, epoch, samples, bad, last: task.last }
    }
}

type Job = (u64, Task, Vec<u8>);
type Answer = (u64, Result<Done, String>);

/// The threads and what they have in hand. They end when this is dropped.
pub(super) struct Loader<'a> {
    tasks: Box<dyn Iterator<Item = Task> + 'a>,
    jobs: Option<Sender<Job>>,
    answers: Receiver<Answer>,
    workers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Most tasks that are out at a time.
    ahead: u64,
    sent: u64,
    next: u64,
    waiting: BTreeMap<u64, Result<Done, String>>,
    spare: Vec<Vec<u8>>,
    /// Buffers that were ever made.
    pub(super) buffers: u64,
}

impl<'a> Loader<'a> {
    /// `workers` threads, at least one, that work `tasks` off, `ahead` at a time.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start(
        reader: &Arc<Reader>,
        workers: usize,
        ahead: usize,
        tasks: Box<dyn Iterator<Item = Task> + 'a>,
    ) -> Result<Self> {
        let workers = workers.max(1);
        let ahead = ahead.max(workers);
        let (jobs, todo) = bounded::<Job>(ahead);
        let (done, answers) = bounded::<Answer>(ahead);
        let stop = Arc::new(AtomicBool::new(false));
        let mut loader = Self {
            tasks,
            jobs: Some(jobs),
            answers,
            workers: Vec::with_capacity(workers),
            stop: stop.clone(),
            ahead: ahead as u64,
            sent: 0,
            next: 0,
            waiting: BTreeMap::new(),
            spare: Vec::new(),
            buffers: 0,
        };
        for number in 0..workers {
            let (reader, todo, done, stop) = (reader.clone(), todo.clone(), done.clone(), stop.clone());
            let thread = std::thread::Builder::new().name(format!("decode {number}"));
            let thread = thread.spawn(move || toil(&reader, &todo, &done, &stop));
            let thread =
                thread.map_err(|e| Error::Failed(format!("cannot start thread {number} of data.workers: {e}")))?;
            loader.workers.push(thread);
        }
        Ok(loader)
    }

    /// The next result in the order of the tasks; `None` after the last.
    ///
    /// # Errors
    /// A worker died.
    pub(super) fn next(&mut self) -> Option<Result<Done>> {
        let dead = || Error::Failed("the threads that decode pictures have died".into());
        while self.sent < self.next + self.ahead {
            let Some(task) = self.tasks.next() else { break };
            let buffer = self.spare.pop().unwrap_or_else(|| {
                self.buffers += 1;
                Vec::new()
            });
            match self.jobs.as_ref().map(|jobs| jobs.send((self.sent, task, buffer))) {
                Some(Ok(())) => self.sent += 1,
                _ => return Some(Err(dead())),
            }
        }
        if self.next == self.sent {
            return None;
        }
        loop {
            if let Some(answer) = self.waiting.remove(&self.next) {
                self.next += 1;
                return Some(answer.map_err(Error::Failed));
            }
            match self.answers.recv() {
                Ok((number, answer)) => drop(self.waiting.insert(number, answer)),
                Err(_) => return Some(Err(dead())),
            }
        }
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&mut self, squares: Vec<u8>) {
        self.spare.push(squares);
    }
}

impl Drop for Loader<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // It tells of its panics itself.
            let _ = worker.join();
        }
    }
}

/// A worker: it ends when there are no more jobs or nobody wants its answers. No panic leaves it: the answer that it would have given is
/// awaited.
fn toil(reader: &Reader, jobs: &Receiver<Job>, answers: &Sender<Answer>, stop: &AtomicBool) {
    let mut worker = Worker::default();
    let at = AtomicI64::new(0);
    for (number, task, buffer) in jobs {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let work = || reader.work(&task, &mut worker, buffer, &at, stop);
        let done = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let picture = reader.index.told(at.load(Ordering::Relaxed));
            format!(
                "a thread that decodes died at {picture}: {}; remove that picture and report it",
                text.unwrap_or("unknown")
            )
        });
        if done.is_err() {
            worker = Worker::default();
        }
        if answers.send((number, done)).is_err() {
            return;
        }
    }
}
