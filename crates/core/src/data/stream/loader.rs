//! Threads that decode ahead of the step, and put what they made back into order.
//!
//! Tasks go out with a number each, at most so many at a time; results come back in any order and are handed on by number. So memory is
//! bounded by the buffers of the tasks that are out, and what comes out depends on neither the number of threads nor their pace.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::bad::Bad;
use super::decode::{CHANNELS, Scratch};
use super::index::{Index, Shards};
use super::view::{TestView, TrainView};
use crate::data::Flip;
use crate::data::augment::salted;
use crate::random::rng;
use crate::{Error, Result};

/// Pictures of a task.
pub(super) const CHUNK: usize = 8;

/// What the pictures of a split become: bytes in a task's buffer, and what is told beside them.
pub(super) trait Maker: Debug + Send + Sync + 'static {
    /// What the draws of a training batch need beside seed, epoch and step.
    type How: Clone + Debug + Send + 'static;
    /// What is told of a picture beside its bytes.
    type Note: Debug + Send + 'static;

    /// Pictures in the split.
    fn len(&self) -> u64;

    /// How a picture is called in messages.
    fn told(&self, sample: i64) -> String;

    /// Bad pictures that are put up with.
    fn max_bad(&self) -> u64;

    /// Makes `bytes`, which are those of an earlier task, ready for one of `count` pictures.
    fn begin(&self, count: usize, draws: Option<&Drawn<Self::How>>, bytes: &mut Vec<u8>);

    /// Puts the picture of this number into `bytes`, as number `at` of the `count` of its task.
    ///
    /// # Errors
    /// Why the picture is bad; the bytes of those before it are as they were.
    fn make(
        &self,
        number: i64,
        draws: Option<&Drawn<Self::How>>,
        worker: &mut Worker,
        bytes: &mut Vec<u8>,
        at: (usize, usize),
    ) -> Result<Self::Note, String>;

    /// The place in the set of the picture of this number; see [`crate::data::Draws::samples`].
    fn place(&self, number: i64) -> i64 {
        number % self.len() as i64
    }
}

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

/// What training pictures are drawn from.
#[derive(Debug, Clone)]
pub(super) struct Drawn<How> {
    pub(super) seed: u64,
    pub(super) epoch: u64,
    /// The training step, counted from the start of the run.
    pub(super) step: u64,
    pub(super) how: How,
}

/// For each view of a picture the salt of its draws, and the flip, if it is done here.
pub(super) type Seen = Arc<[(String, Option<Flip>)]>;

/// A few pictures to read, one after the other in an order.
#[derive(Debug, Clone)]
pub(super) struct Task<How> {
    /// The numbers of all pictures of the epoch or the evaluation.
    pub(super) order: Arc<[i64]>,
    /// The first place in it, and how many.
    pub(super) places: (usize, usize),
    /// In training; a picture that is bad is replaced then by the next in the order that is not, and left out otherwise.
    pub(super) draws: Option<Drawn<How>>,
    /// Whether a batch ends with it.
    pub(super) last: bool,
}

impl<How> Task<How> {
    /// The pictures at the places `range` without chance, in their own order; every `batch` places a batch ends.
    pub(super) fn in_order(range: Range<u64>, batch: usize) -> impl Iterator<Item = Task<How>> {
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
pub(super) struct Done<Note> {
    /// As the maker put them there.
    pub(super) bytes: Vec<u8>,
    /// Pictures that there was room for.
    pub(super) places: usize,
    /// The epoch that the pictures are seen in; 0 without one.
    pub(super) epoch: u64,
    /// The number of each picture.
    pub(super) samples: Vec<i64>,
    /// What is told of each.
    pub(super) notes: Vec<Note>,
    /// The places of pictures that are bad, and why.
    pub(super) bad: Vec<(i64, String)>,
    /// Whether a batch ends with it.
    pub(super) last: bool,
}

/// A worker's own buffers.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) scratch: Scratch,
    pub(super) shards: Shards,
}

impl Reader {
    pub(super) fn square_bytes(&self) -> usize {
        (self.edge * self.edge) as usize * CHANNELS
    }

    /// Fills each of `squares` with a view of the picture of this number, which is decoded once.
    ///
    /// # Errors
    /// Why the picture is bad.
    pub(super) fn read<'a>(
        &self,
        number: i64,
        draws: Option<&Drawn<Seen>>,
        worker: &mut Worker,
        squares: impl Iterator<Item = &'a mut [u8]>,
    ) -> Result<(), String> {
        self.index.read(self.place(number), &mut worker.shards, &mut worker.scratch.file)?;
        match (&self.view, draws) {
            (Cutting::Train(view), Some(Drawn { seed, epoch, how: views, .. })) => {
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
}

impl Maker for Reader {
    type How = Seen;
    type Note = ();

    fn len(&self) -> u64 {
        self.index.len()
    }

    fn told(&self, sample: i64) -> String {
        self.index.told(sample)
    }

    fn max_bad(&self) -> u64 {
        self.max_bad
    }

    /// For each view a block of `count` squares, `edge` × `edge` × 3 bytes each.
    fn begin(&self, count: usize, draws: Option<&Drawn<Seen>>, bytes: &mut Vec<u8>) {
        bytes.resize(draws.map_or(1, |draws| draws.how.len()) * count * self.square_bytes(), 0);
    }

    fn make(
        &self,
        number: i64,
        draws: Option<&Drawn<Seen>>,
        worker: &mut Worker,
        bytes: &mut Vec<u8>,
        (at, count): (usize, usize),
    ) -> Result<(), String> {
        let size = self.square_bytes();
        let own = bytes.chunks_exact_mut(count * size).map(|block| &mut block[at * size..(at + 1) * size]);
        self.read(number, draws, worker, own)
    }
}

/// Works off a task; `at` tells which picture is in hand, `stop` ends it early.
fn work<M: Maker>(
    maker: &M,
    task: &Task<M::How>,
    worker: &mut Worker,
    mut bytes: Vec<u8>,
    at: &AtomicI64,
    stop: &AtomicBool,
) -> Done<M::Note> {
    let ((first, count), draws) = (task.places, task.draws.as_ref());
    maker.begin(count, draws, &mut bytes);
    let (mut samples, mut notes, mut bad) = (Vec::with_capacity(count), Vec::with_capacity(count), Vec::new());
    'places: for place in first..first + count {
        for next in 0..task.order.len() {
            if stop.load(Ordering::Relaxed) {
                break 'places;
            }
            let number = task.order[(place + next) % task.order.len()];
            let sample = maker.place(number);
            if bad.iter().any(|(known, _)| *known == sample) {
                continue;
            }
            at.store(sample, Ordering::Relaxed);
            match maker.make(number, draws, worker, &mut bytes, (samples.len(), count)) {
                Ok(note) => {
                    samples.push(number);
                    notes.push(note);
                    break;
                }
                Err(reason) => bad.push((sample, reason)),
            }
            if draws.is_none() {
                break;
            }
            if bad.len() as u64 > maker.max_bad() {
                // So many are refused: nobody waits for the rest.
                break 'places;
            }
        }
    }
    let epoch = draws.map_or(0, |draws| draws.epoch);
    Done { bytes, places: count, epoch, samples, notes, bad, last: task.last }
}

type Job<How> = (u64, Task<How>, Vec<u8>);
type Answer<Note> = (u64, Result<Done<Note>, String>);

/// The threads and what they have in hand. They end when this is dropped.
pub(super) struct Loader<'a, M: Maker> {
    maker: Arc<M>,
    tasks: Box<dyn Iterator<Item = Task<M::How>> + 'a>,
    jobs: Option<Sender<Job<M::How>>>,
    answers: Receiver<Answer<M::Note>>,
    workers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Most tasks that are out at a time.
    ahead: u64,
    sent: u64,
    next: u64,
    waiting: BTreeMap<u64, Result<Done<M::Note>, String>>,
    spare: Vec<Vec<u8>>,
    /// Buffers that were ever made.
    pub(super) buffers: u64,
}

impl<'a, M: Maker> Loader<'a, M> {
    /// `workers` threads, at least one, that work `tasks` off, `ahead` at a time.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start(
        maker: &Arc<M>,
        workers: usize,
        ahead: usize,
        tasks: Box<dyn Iterator<Item = Task<M::How>> + 'a>,
    ) -> Result<Self> {
        let workers = workers.max(1);
        let ahead = ahead.max(workers);
        let (jobs, todo) = bounded::<Job<M::How>>(ahead);
        let (done, answers) = bounded::<Answer<M::Note>>(ahead);
        let stop = Arc::new(AtomicBool::new(false));
        let mut loader = Self {
            maker: maker.clone(),
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
            let (maker, todo, done, stop) = (maker.clone(), todo.clone(), done.clone(), stop.clone());
            let thread = std::thread::Builder::new().name(format!("decode {number}"));
            let thread = thread.spawn(move || toil(&*maker, &todo, &done, &stop));
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
    pub(super) fn next(&mut self) -> Option<Result<Done<M::Note>>> {
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

    /// Hands the results of the next batch to `fill`, one after the other, which gives back a buffer that it no longer needs; writes down
    /// what is bad. Where all pictures of a batch are left out, the next takes its place. Returns how many pictures there were: none after
    /// the last batch.
    ///
    /// # Errors
    /// A worker died; more is bad than is put up with; those of `fill`.
    pub(super) fn batch(
        &mut self,
        training: bool,
        bad: &Bad,
        mut fill: impl FnMut(Done<M::Note>) -> Result<Option<Vec<u8>>>,
    ) -> Result<usize> {
        let (mut count, fate) = (0, if training { "replaced by the next" } else { "left out" });
        while let Some(done) = self.next() {
            let done = done?;
            for (sample, reason) in &done.bad {
                bad.add(self.maker.told(*sample), fate, reason)?;
            }
            count += done.samples.len();
            let last = done.last;
            fill(done)?.into_iter().for_each(|bytes| self.recycle(bytes));
            if last && (training || count > 0) {
                break;
            }
        }
        Ok(count)
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&mut self, bytes: Vec<u8>) {
        self.spare.push(bytes);
    }
}

impl<M: Maker> Drop for Loader<'_, M> {
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
fn toil<M: Maker>(maker: &M, jobs: &Receiver<Job<M::How>>, answers: &Sender<Answer<M::Note>>, stop: &AtomicBool) {
    let mut worker = Worker::default();
    let at = AtomicI64::new(0);
    for (number, task, buffer) in jobs {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let job = || work(maker, &task, &mut worker, buffer, &at, stop);
        let done = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let picture = maker.told(at.load(Ordering::Relaxed));
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
