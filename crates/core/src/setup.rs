//! The surroundings of a run: its settings, its device, its processes, and what its reader must be told.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use rand::Rng;
use tch::{Device, Kind, Tensor};
use torch_ext::{ProcessGroup, TensorList};

use crate::config::{Head, Length, Precision, Settings};
use crate::nn::Gather;
use crate::random::rng;
use crate::weights::{self, Named};
use crate::{Error, Result, user};

/// Settings and surroundings of a run, or of one of its stages.
#[derive(Debug)]
pub struct Setup {
    /// What all papers share of the configuration. In a stage `length`, `batch_size` and `seed` are the stage's own.
    pub settings: Settings,
    /// Where the tensors live.
    pub device: Device,
    /// This process among `world`.
    pub rank: u64,
    /// Number of processes.
    pub world: u64,
    /// The stage's name: `train`, `pretrain`, `probe`. Empty before there is one.
    pub stage: String,
    /// The weights that are tested or asked. `None`: the run trains its own.
    pub given: Option<Given>,
    /// The card of the weights that the stage begins with, if they have one.
    pub(crate) init_card: Option<String>,
    /// Whether the classifier of those weights is taken over, if that is asked.
    pub(crate) takes_head: Cell<bool>,
    /// Whether it is for other classes, and starts fresh.
    pub(crate) fresh_head: Cell<bool>,
    group: Option<Rc<ProcessGroup>>,
    /// How often the processes have met; part of the keys in their store.
    meetings: Rc<Cell<u64>>,
    notes: RefCell<Vec<String>>,
    /// Where detections are to be written, until they are.
    detections: RefCell<Option<PathBuf>>,
}

/// What is known of weights that are tested or asked, beside their tensors.
#[derive(Debug, Clone)]
pub struct Given {
    /// The JSON text in their file ([`crate::trainer::Recipe::card`]), if there is one.
    pub card: Option<String>,
}

impl Setup {
    /// The surroundings of this process among those that torchrun or `--processes` started; of one process without them.
    ///
    /// # Errors
    /// torchrun's variables are wrong; the other processes do not come.
    pub fn new(settings: Settings, device: Device) -> Result<Self> {
        let group = ProcessGroup::from_env().map_err(|e| user!("cannot join the other processes: {e}"))?;
        let (rank, world) = group.as_ref().map_or((0, 1), |g| (g.rank() as u64, g.world() as u64));
        let (group, meetings) = (group.map(Rc::new), Rc::default());
        let notes = RefCell::default();
        let (init_card, takes_head, fresh_head) = (None, Cell::default(), Cell::default());
        let (stage, given) = (String::new(), None);
        Ok(Self {
            settings,
            device,
            rank,
            world,
            stage,
            given,
            init_card,
            takes_head,
            fresh_head,
            group,
            meetings,
            notes,
            detections: RefCell::default(),
        })
    }

    /// The same to test or ask weights whose file has this `card`.
    pub fn with_given(self, card: Option<String>) -> Self {
        Self { given: Some(Given { card }), ..self }
    }

    /// The same to write what is found in photos to this file, if one is given.
    pub(crate) fn with_detections(self, file: Option<PathBuf>) -> Self {
        Self { detections: RefCell::new(file), ..self }
    }

    /// Where detections are to be written, asked for by who writes them.
    pub(crate) fn take_detections(&self) -> Option<PathBuf> {
        self.detections.borrow_mut().take()
    }

    /// Runs a forward pass in the run's precision.
    ///
    /// # Errors
    /// A device without it.
    pub fn autocast<T>(&self, forward: impl FnOnce() -> T) -> Result<T> {
        let _guard = match self.settings.compute.precision {
            Precision::F32 => None,
            Precision::Bf16 => Some(torch_ext::Autocast::new(self.device, Kind::BFloat16)?),
        };
        Ok(forward())
    }

    /// The same for a stage that lasts so long and takes so many examples a step. The run's first stage keeps the seed; a later one has a seed
    /// of (seed, stage), so that no two stages draw the same orders, crops or dropout. The processes are shared, notes are not.
    pub fn for_stage(&self, stage: &str, later: bool, length: Option<Length>, batch_size: u64) -> Self {
        let mut settings = self.settings.clone();
        settings.length = length.unwrap_or(Length::Steps(0));
        settings.batch_size = batch_size;
        if later {
            settings.seed = rng(settings.seed, 0, 0, &format!("stage {stage}")).next_u64();
        }
        Self {
            settings,
            stage: stage.to_string(),
            given: self.given.clone(),
            group: self.group.clone(),
            meetings: self.meetings.clone(),
            init_card: None,
            takes_head: Cell::default(),
            fresh_head: Cell::default(),
            notes: RefCell::default(),
            detections: self.detections.clone(),
            ..*self
        }
    }

    /// In what the classes on the `card` of what is trained here are not those of the classifier that was taken over; from then on
    /// [`weights::begin`] starts it afresh. `None`: in nothing.
    ///
    /// # Errors
    /// They are others, and `init.head` is `strict`.
    pub(crate) fn other_classes(&self, card: Option<&str>) -> Result<Option<String>> {
        let classes = |card: &str| -> Option<Vec<String>> {
            serde_json::from_value(serde_json::from_str::<serde_json::Value>(card).ok()?.get("classes")?.clone()).ok()
        };
        let (Some(ours), Some(theirs)) = (card.and_then(classes), self.init_card.as_deref().and_then(classes)) else {
            return Ok(None);
        };
        if ours == theirs || !self.takes_head.get() {
            return Ok(None);
        }
        let told = |names: &[String]| weights::some(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let text = format!("the weights to begin with know {}, and the data have {}", told(&theirs), told(&ours));
        if self.settings.init.as_ref().and_then(|init| init.head) == Some(Head::Strict) {
            return Err(user!("init.head is strict, but {text}; leave it away, and the classifier starts fresh"));
        }
        self.fresh_head.set(true);
        Ok(Some(text))
    }

    /// Whether any process asks for something: all of them get the same answer, so that they stop at the same step.
    pub(crate) fn any(&self, here: bool) -> Result<bool> {
        match &self.group {
            None => Ok(here),
            Some(group) => Ok(group.all_gather(&Tensor::from(i64::from(here)))?.max().f_int64_value(&[])? > 0),
        }
    }

    /// The means over the processes of numbers that all of them have, in one order.
    pub(crate) fn means(&self, here: &[f64]) -> Result<Vec<f64>> {
        match &self.group {
            Some(group) if !here.is_empty() => {
                let all = group.all_gather(&Tensor::f_from_slice(here)?)?;
                Ok(Vec::try_from(all.f_mean_dim([0_i64].as_slice(), false, Kind::Double)?)?)
            }
            _ => Ok(here.to_vec()),
        }
    }

    /// The rows `[n, …]` of each process, by rank, on the CPU; n may differ. No gradient flows.
    ///
    /// # Errors
    /// A process left.
    pub fn gather_rows(&self, rows: &Tensor) -> Result<Vec<Tensor>> {
        let rows = rows.f_detach()?.f_to_device(Device::Cpu)?;
        let Some(group) = &self.group else { return Ok(vec![rows]) };
        let counts = Vec::<i64>::try_from(group.all_gather(&Tensor::from(rows.size()[0]))?)?;
        let most = counts.iter().copied().max().unwrap_or(0);
        let mut padding = vec![0; 2 * rows.dim()];
        // Pairs from the last dimension to the first.
        padding[2 * rows.dim() - 1] = most - rows.size()[0];
        let all = group.all_gather(&rows.f_constant_pad_nd(padding)?)?;
        counts.iter().enumerate().map(|(rank, &n)| Ok(all.f_get(rank as i64)?.f_narrow(0, 0, n)?)).collect()
    }

    /// Refuses to go on where the processes do not have one `what`, such as the hash of the data: each then trained on its own.
    ///
    /// # Errors
    /// The ranks that differ from rank 0.
    pub(crate) fn agree(&self, what: &str, text: &str) -> Result<()> {
        let all = self.gather_rows(&Tensor::f_from_slice(text.as_bytes())?)?;
        let odd: Vec<_> = (1..all.len()).filter(|&rank| all[rank] != all[0]).map(|rank| rank.to_string()).collect();
        if odd.is_empty() {
            return Ok(());
        }
        Err(user!("process {} has another {what} than process 0; start all with the same", odd.join(", ")))
    }

    /// Replaces tensors by those of rank 0, in place: processors of several kinds draw other normal numbers from one seed.
    pub(crate) fn share(&self, state: &Named) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        self.agree("model: names and shapes of its tensors", &weights::outline(state))?;
        let tensors: Vec<&Tensor> = state.values().collect();
        Ok(group.broadcast(&TensorList::new(&tensors)?)?)
    }

    /// Waits until all processes have come here, however long one of them takes.
    ///
    /// # Errors
    /// A process left.
    pub fn meet(&self) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        self.meetings.set(self.meetings.get() + 1);
        group.meet(&format!("meeting-{}", self.meetings.get())).map_err(Error::from)
    }

    /// What batch norm takes the statistics of the whole batch by ([`crate::nn::BatchNormConfig::over`]); nothing in a single process.
    pub fn exchange(&self) -> Option<Gather> {
        let group = self.group.clone()?;
        let gather = move |part: &Tensor| group.gather_alike(&part.unsqueeze(0));
        // A layer gives a tensor and not a result, so that the error travels as a panic to the end of the run, which knows it as an error.
        let lost = |error| Error::Failed(format!("batch norm over processes: {error}; has another process ended?"));
        Some(Gather::new(move |part| gather(part).unwrap_or_else(|error| std::panic::panic_any(lost(error)))))
    }

    /// The processes, if there are several.
    pub(crate) fn group(&self) -> Option<&ProcessGroup> {
        self.group.as_deref()
    }

    /// Something the reader of the result must know, such as a test picture in the training set: logged, and kept in `result.json`.
    pub fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }

    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.borrow_mut())
    }

    /// Notes an arithmetic that this machine only imitates, at a multiple of the time.
    pub(crate) fn note_slow_precision(&self) {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if self.device == Device::Cpu && self.settings.compute.precision == Precision::Bf16 && lacks_bf16(&info) {
            self.note(
                "compute.precision is bf16, but this CPU has no arithmetic for it (neither avx512_bf16 nor amx_bf16) and imitates it, several times \
                 slower than float32: set compute.precision=f32",
            );
        }
    }

    /// Seeds libtorch's generators before a model is built: all processes draw the same weights.
    pub(crate) fn seed_build(&self) {
        tch::manual_seed(rng(self.settings.seed, 0, 0, "build").next_u64() as i64);
    }
}

/// Whether a text as of `/proc/cpuinfo` tells the flags of an x86 processor, and none for bfloat16 is among them.
fn lacks_bf16(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.is_some_and(|(_, flags)| !flags.split_whitespace().any(|flag| ["avx512_bf16", "amx_bf16"].contains(&flag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_tells_whether_it_has_bfloat16() {
        let of =
            |flags: &str| format!("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n");
        assert!(lacks_bf16(&of("fpu sse2 avx avx2 fma avx512f")));
        assert!(!lacks_bf16(&of("fpu avx512_bf16 avx512f")));
        assert!(!lacks_bf16(&of("fpu amx_tile amx_bf16")));
        // Another kind of processor, or another system, which tells nothing.
        assert!(!lacks_bf16("processor\t: 0\nFeatures\t: fp asimd bf16\n"));
        assert!(!lacks_bf16(""));
    }
}
