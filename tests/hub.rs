//! Weights by their address in the hub, through a binary and from a server on the loopback. Nobody else is asked.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use repro::weights;
use sha2::{Digest, Sha256};

use crate::program::{program, result, root, run, succeed, text};

const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// A hub with one file, `lab/net/model.safetensors`.
struct Hub {
    address: String,
    /// Method and path of each request.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn new(file: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let of_thread = seen.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                // A client that leaves early is its own business.
                let _ = serve(connection.unwrap(), &file, &of_thread);
            }
        });
        Self { address, seen }
    }

    /// A command that has its cache in `folder`.
    fn ask(&self, folder: &Path, mut command: Command) -> Command {
        for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.address).env("HF_HOME", folder.join("hf")).env("NO_PROXY", "127.0.0.1");
        command
    }

    fn files_sent(&self) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.starts_with("GET /lab/")).count()
    }
}

fn serve(mut connection: TcpStream, file: &[u8], seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    seen.lock().unwrap().push(request.trim_end_matches(" HTTP/1.1").to_string());
    let list = format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "model.safetensors"}}]}}"#);
    let sum = weights::hex(&Sha256::digest(file));
    let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
        "/api/models/lab/net/revision/main" => (200, list.as_bytes()),
        path if path == format!("/lab/net/resolve/{COMMIT}/model.safetensors") => (200, file),
        _ => (404, &b""[..]),
    };
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status} So\r\nContent-Length: {length}\r\nETag: \"{sum}\"\r\nConnection: close\r\n\r\n"
    )?;
    if request.starts_with("HEAD") { Ok(()) } else { connection.write_all(body) }
}

#[test]
fn an_address_in_the_hub_stands_wherever_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let yaml = root().join("experiments/vit/smoke.yaml").display().to_string();
    let few = ["length=1 steps", "data.limit_test=10", "schedule.warmup=0 steps", "--device", "cpu", "-q"];
    let train = |out: &str, words: &[&str]| {
        let words = [&["train", "--config", &yaml, "--out", out][..], &few, words].concat();
        program("vit", folder, words)
    };
    succeed(train("published", &[]));
    let hub = Hub::new(fs::read(folder.join("published/weights.safetensors")).unwrap());
    let image = tch::Tensor::rand([2, 3, 32, 32], (tch::Kind::Float, tch::Device::Cpu));
    weights::write(&folder.join("i.safetensors"), &[("image".to_string(), image)].into(), None).unwrap();
    let forward = |weights: &str, output: &str| {
        let files = ["--weights", weights, "--input", "i.safetensors", "--output", output];
        hub.ask(
            folder,
            program("vit", folder, [&["forward", "--config", &yaml, "--device", "cpu"][..], &files].concat()),
        )
    };

    // What is wrong with the command is said before anything is fetched.
    let said = run(hub.ask(folder, program("vit", folder, ["predict", "--weights", "hf:lab/net", "p.png"])));
    assert!(said.status.code() == Some(2) && text(&said.stderr).contains("--config FILE is missing"));
    assert!(hub.seen.lock().unwrap().is_empty());
    let mut offline = forward("hf:lab/net", "o.safetensors");
    let said = run({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    let refused = text(&said.stderr);
    assert!(said.status.code() == Some(2) && refused.lines().count() == 1, "{refused}");
    assert!(refused.contains("hf:lab/net is not in") && refused.contains("HF_HUB_OFFLINE"), "{refused}");
    assert!(hub.seen.lock().unwrap().is_empty());

    // Two processes begin with what one of them fetches.
    succeed(hub.ask(folder, train("begun", &["--init", "hf:lab/net", "--processes", "2"])));
    assert_eq!(hub.files_sent(), 1);
    let init = result(&folder.join("begun"))["init"].clone();
    assert_eq!(init["path"], format!("hf:lab/net@{COMMIT}/model.safetensors"));
    assert_eq!(init["sha256"], result(&folder.join("published"))["weights_sha256"]);

    // From the cache from now on.
    succeed(forward("published", "here.safetensors"));
    let mut offline = forward("hf:lab/net", "hub.safetensors");
    succeed({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    let [here, there] = ["here", "hub"].map(|name| fs::read(folder.join(format!("{name}.safetensors"))).unwrap());
    assert!(here == there, "the outputs differ");
    assert_eq!(hub.files_sent(), 1);

    let said = run(forward("hf:lab/none", "o.safetensors"));
    let refused = text(&said.stderr);
    assert!(said.status.code() == Some(2) && refused.lines().count() == 1, "{refused}");
    assert!(refused.contains("hf:lab/none: ") && refused.contains("404"), "{refused}");
}
