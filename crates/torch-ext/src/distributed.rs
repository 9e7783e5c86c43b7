//! Several processes working on one batch: libtorch's own c10d with Gloo, over torchrun's environment variables.

use std::env;
use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};

use tch::Tensor;

use crate::{Error, Result, TensorList, ffi};

/// How long processes wait for one another: to join, and in every exchange.
const TIMEOUT_SECONDS: i64 = 300;

/// This process among those that train one model. All of them must make the same calls in the same order.
#[derive(Debug)]
pub struct ProcessGroup {
    group: NonNull<ffi::Group>,
    rank: i64,
    world: i64,
}

// SAFETY: the C side holds reference-counted objects that do not depend on the thread that made them.
unsafe impl Send for ProcessGroup {}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // SAFETY: made by `ext_group_new`, freed once.
        unsafe { ffi::ext_group_free(self.group.as_ptr()) };
    }
}

/// What torchrun tells a process.
#[derive(Debug, PartialEq)]
struct Place {
    host: String,
    port: u16,
    rank: i64,
    world: i64,
    /// Prefix of this attempt's keys where torchrun's agent serves the store; otherwise rank 0 serves it.
    agent_prefix: Option<String>,
}

impl Place {
    /// `None` where there is one process only.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let need = |name: &str| {
            variable(name)
                .ok_or_else(|| Error(format!("WORLD_SIZE is set, {name} is not; start with torchrun, or set both")))
        };
        let number = |name: &str| {
            let text = need(name)?;
            text.parse::<i64>()
                .ok()
                .filter(|&n| n >= 0)
                .ok_or_else(|| Error(format!("{name} is `{text}`; it must be a whole number")))
        };
        if variable("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let (world, rank) = (number("WORLD_SIZE")?, number("RANK")?);
        if rank >= world || world > c_int::MAX.into() {
            return Err(Error(format!("RANK is {rank} and WORLD_SIZE {world}; ranks are 0 to WORLD_SIZE − 1")));
        }
        if world == 1 {
            return Ok(None);
        }
        let port = number("MASTER_PORT")?;
        let port = u16::try_from(port).map_err(|_| Error(format!("MASTER_PORT is {port}; ports end at 65535")))?;
        let agent_prefix = match variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() {
            Some("True") => Some(format!("/worker/attempt_{}", need("TORCHELASTIC_RESTART_COUNT")?)),
            _ => None,
        };
        Ok(Some(Self { host: need("MASTER_ADDR")?, port, rank, world, agent_prefix }))
    }
}

impl ProcessGroup {
    /// Joins the processes that torchrun started, by `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`; `None` if this is the only
    /// one. Returns when all have come. `GLOO_SOCKET_IFNAME` chooses the network interface.
    /// # Errors
    /// Variables that are missing or wrong; processes that do not come within five minutes.
    pub fn from_env() -> Result<Option<Self>> {
        // A variable that is not UTF-8 reads as missing.
        Place::read(|name| env::var(name).ok())?.map(|place| Self::join(&place)).transpose()
    }

    fn join(place: &Place) -> Result<Self> {
        let c_string = |text: &str| CString::new(text).map_err(|_| Error(format!("`{text}` holds a zero byte")));
        let host = c_string(&place.host)?;
        let prefix = place.agent_prefix.as_deref().map(c_string).transpose()?;
        let prefix = prefix.as_ref().map_or(ptr::null(), |prefix| prefix.as_ptr());
        let (rank, world) = (place.rank as c_int, place.world as c_int);
        // SAFETY: C strings that outlive the call; `prefix` may be null.
        let group = unsafe { ffi::ext_group_new(host.as_ptr(), place.port, rank, world, prefix, TIMEOUT_SECONDS) };
        let group = NonNull::new(group).ok_or_else(ffi::last_error)?;
        Ok(Self { group, rank: place.rank, world: place.world })
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> i64 {
        self.rank
    }

    /// Number of processes, at least 2.
    pub fn world(&self) -> i64 {
        self.world
    }

    /// Replaces each gradient by its mean over the processes, in one exchange. Where a parameter has a gradient in some processes only, it is
    /// zero in the others; where it has none in any, it stays without.
    /// # Errors
    /// A process left or did not answer in time; parameters unlike those of another process or of several kinds, gradients of another shape than theirs.
    pub fn average_grads(&self, params: &TensorList) -> Result<()> {
        // A list keeps its tensors: they are compared once.
        let check = !params.compared.replace(true);
        // SAFETY: a live group and a live list.
        ffi::check(unsafe { ffi::ext_group_average_grads(self.group.as_ptr(), params.list.as_ptr(), check) })
    }

    /// Replaces each tensor by that of rank 0, in place.
    /// # Errors
    /// A process left or did not answer in time.
    pub fn broadcast(&self, tensors: &TensorList) -> Result<()> {
        // SAFETY: a live group and a live list.
        ffi::check(unsafe { ffi::ext_group_broadcast(self.group.as_ptr(), tensors.list.as_ptr()) })
    }

    /// `[n, …]` on each process → `[world·n, …]` on all, by rank; n is the same everywhere. Differentiable: backward gives each process the sum
    /// of the gradients that the losses of all processes have by its rows, so all must take part in it.
    /// # Errors
    /// A process left or did not answer in time; rows unlike those of another process; no rows.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        // SAFETY: a live group and a live tensor.
        ffi::tensor(unsafe { ffi::ext_group_gather(self.group.as_ptr(), rows.as_ptr(), true) })
    }

    /// The same where the shapes cannot differ, so that they are not compared first, which is an exchange of its own.
    /// # Errors
    /// A process left or did not answer in time; no rows. Rows unlike those of another process end the program.
    pub fn gather_alike(&self, rows: &Tensor) -> Result<Tensor> {
        // SAFETY: a live group and a live tensor.
        ffi::tensor(unsafe { ffi::ext_group_gather(self.group.as_ptr(), rows.as_ptr(), false) })
    }

    /// `[…]` on each process → `[world, …]` on all, by rank. No gradient flows through it.
    /// # Errors
    /// A process left or did not answer in time.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        // SAFETY: a live group and a live tensor.
        ffi::tensor(unsafe { ffi::ext_group_all_gather(self.group.as_ptr(), tensor.as_ptr()) })
    }

    /// Waits until all processes have come to this meeting, without a time limit; each meeting has a `tag` of its own.
    /// # Errors
    /// A process that serves the meeting place left.
    pub fn meet(&self, tag: &str) -> Result<()> {
        let tag = CString::new(tag).map_err(|_| Error(format!("`{tag}` holds a zero byte")))?;
        // SAFETY: a live group, a C string that outlives the call.
        ffi::check(unsafe { ffi::ext_group_meet(self.group.as_ptr(), tag.as_ptr()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};
    use tch::{Device, Kind};

    const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.detach().contiguous().view(-1)).unwrap()
    }

    /// Runs `body` of the test called `name` in two processes of one group: this test twice more. Threads will not do, since libtorch's record
    /// of exchanges (FlightRecorder) takes it that a process belongs to one group.
    fn two(name: &str, body: fn(ProcessGroup)) {
        const MEMBER: &str = "REPRO_TEST_MEMBER";
        if std::env::var_os(MEMBER).is_some() {
            return body(ProcessGroup::from_env().unwrap().unwrap());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let member = |rank: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", &format!("distributed::tests::{name}")]).env(MEMBER, "").env("RANK", rank);
            command.env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for member in ["0", "1"].map(member) {
            let output = member.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}", output.status);
        }
    }

    #[test]
    fn gradients_become_their_mean() {
        two("gradients_become_their_mean", |group| {
            let scale = group.rank() as f64 + 1.0;
            let a = Tensor::ones([3], F64).set_requires_grad(true);
            let b = crate::channels_last(&Tensor::ones([2, 3, 2, 2], F64)).unwrap().set_requires_grad(true);
            let unused = Tensor::ones([5], F64).set_requires_grad(true);
            let factors = Tensor::arange(24, F64).view([2, 3, 2, 2]);
            ((&a * scale).sum(Kind::Double) + (&b * &factors * scale).sum(Kind::Double)).backward();
            group.average_grads(&TensorList::new(&[&a, &unused, &b]).unwrap()).unwrap();
            assert_eq!(numbers(&a.grad()), [1.5; 3]);
            assert_eq!(numbers(&b.grad()), numbers(&(factors * 1.5)));
            assert!(!unused.grad().defined());
        });
    }

    #[test]
    fn a_gradient_that_one_process_lacks_is_zero_there() {
        two("a_gradient_that_one_process_lacks_is_zero_there", |group| {
            let [a, b, c] = [2, 3, 4].map(|n| Tensor::ones([n], F64).set_requires_grad(true));
            let loss = if group.rank() == 0 { (&a * 4.0).sum(Kind::Double) } else { (&b * 6.0).sum(Kind::Double) };
            loss.backward();
            group.average_grads(&TensorList::new(&[&a, &b, &c]).unwrap()).unwrap();
            assert_eq!((numbers(&a.grad()), numbers(&b.grad())), (vec![2.0; 2], vec![3.0; 3]));
            assert!(!c.grad().defined());
        });
    }

    #[test]
    fn unlike_shapes_are_an_error_in_all_processes() {
        two("unlike_shapes_are_an_error_in_all_processes", |group| {
            let unlike = [[2, 3], [3, 2]][group.rank() as usize];
            let params = unlike.map(|n| Tensor::ones([n], F64).set_requires_grad(true));
            params.iter().map(|param| param.sum(Kind::Double)).sum::<Tensor>().backward();
            for some in [&params[..], &params[..1]] {
                let error = group.average_grads(&TensorList::new(some).unwrap()).unwrap_err();
                assert!(error.to_string().contains("another process"), "{error}");
            }
            assert!(group.gather(&params[0]).is_err());
            assert_eq!(numbers(&group.gather(&Tensor::ones([1], F64)).unwrap()), [1.0; 2]);
        });
    }

    /// −ln softmax of each row's neighbour among all rows: every row stands in every other's sum.
    fn contrast(z: &Tensor) -> Tensor {
        let n = z.size()[0];
        let similarity = z.matmul(&z.tr()) - Tensor::eye(n, F64) * 1e9;
        let partner = (Tensor::arange(n, (Kind::Int64, Device::Cpu)) + 1).remainder(n);
        -similarity.log_softmax(1, Kind::Double).gather(1, &partner.unsqueeze(1), false).mean(Kind::Double)
    }

    #[test]
    fn a_loss_over_gathered_rows_has_the_single_process_gradient() {
        two("a_loss_over_gathered_rows_has_the_single_process_gradient", |group| {
            let rows = Tensor::arange(24, F64).view([6, 4]).sin();
            let weight = || Tensor::arange(12, F64).view([4, 3]).cos().set_requires_grad(true);
            let (one, ours) = (weight(), weight());
            let expected = contrast(&rows.matmul(&one).tanh());
            expected.backward();
            let mine = rows.narrow(0, 3 * group.rank(), 3).matmul(&ours).tanh();
            let all = group.gather(&mine).unwrap();
            assert_eq!(all.size(), [6, 3]);
            let loss = contrast(&all);
            assert!((loss.double_value(&[]) - expected.double_value(&[])).abs() < 1e-15);
            loss.backward();
            group.average_grads(&TensorList::new(&[&ours]).unwrap()).unwrap();
            let gap = (ours.grad() - one.grad()).abs().max().double_value(&[]);
            assert!(gap < 1e-14, "{gap}");
        });
    }

    #[test]
    fn broadcast_gather_and_meet() {
        two("broadcast_gather_and_meet", |group| {
            assert_eq!(group.world(), 2);
            let rank = group.rank() as f64;
            let weight = (Tensor::ones([2, 2], F64) * (rank + 5.0)).set_requires_grad(true);
            let image = Tensor::arange(24, F64).view([1, 2, 3, 4]) * (rank + 1.0);
            // The processes differ in memory format, which must not scramble the values.
            let image = if group.rank() == 0 { image } else { crate::channels_last(&image).unwrap() };
            let count = Tensor::from(group.rank() + 7);
            group.broadcast(&TensorList::new(&[&weight, &image, &count]).unwrap()).unwrap();
            assert_eq!(numbers(&weight), [5.0; 4]);
            assert_eq!(numbers(&image), (0..24).map(f64::from).collect::<Vec<_>>());
            assert_eq!(count.int64_value(&[]), 7);

            let all = group.all_gather(&Tensor::from_slice(&[rank, 10.0 * rank])).unwrap();
            assert_eq!(all.size(), [2, 2]);
            assert_eq!(numbers(&all), [0.0, 0.0, 1.0, 10.0]);
            let begun = std::time::Instant::now();
            if group.rank() == 1 {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            group.meet("one").unwrap();
            assert!(group.rank() == 1 || begun.elapsed().as_millis() >= 190);
            group.meet("two").unwrap();
        });
    }

    #[test]
    fn torchruns_variables_are_read() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            Place::read(move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
        };
        let full = [("WORLD_SIZE", "4"), ("RANK", "3"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29500")];
        let expected = Place { host: "localhost".to_string(), port: 29500, rank: 3, world: 4, agent_prefix: None };
        assert_eq!(read(&full).unwrap(), Some(expected));
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("WORLD_SIZE", "1"), ("RANK", "0")]).unwrap(), None);

        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")];
        let place = read(&[&full[..], &agent].concat()).unwrap().unwrap();
        assert_eq!(place.agent_prefix.as_deref(), Some("/worker/attempt_2"));

        let message = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().to_string();
        assert!(message(&full[..3]).contains("MASTER_PORT is not"));
        assert!(message(&[("WORLD_SIZE", "two"), ("RANK", "0")]).contains("`two`"));
        assert!(message(&[("WORLD_SIZE", "2"), ("RANK", "2")]).contains("RANK is 2"));
        assert!(message(&[("MASTER_PORT", "70000"), full[0], full[1], full[2]]).contains("70000"));
    }
}
