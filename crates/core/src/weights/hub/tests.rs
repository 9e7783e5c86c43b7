//! Against a server on the loopback that answers as the hub does: large files by a redirection to another place, small ones by itself.

use super::*;
use crate::weights::hex;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REPOSITORY: &str = "lab/net";

/// What the server has and how it behaves.
#[derive(Default)]
struct World {
    files: BTreeMap<String, Vec<u8>>,
    /// After how many bytes of a large file the connection ends; without one it does not.
    cuts: VecDeque<usize>,
    /// Whether a range of a large file is given.
    ranges: bool,
    /// Sends other bytes than it announces.
    wrong: bool,
    /// Refuses everything with this status.
    refusal: Option<u16>,
    /// Method, path, range and whether a token came, of each request.
    seen: Vec<String>,
}

struct Server {
    address: String,
    world: Arc<Mutex<World>>,
    cache: tempfile::TempDir,
}

impl Server {
    fn of(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        let world = Arc::new(Mutex::new(World { files, ranges: true, ..World::default() }));
        // By another name, so that it counts as another host.
        let (there, elsewhere) = (world.clone(), address.replace("127.0.0.1", "localhost"));
        // Ends with the process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                // A client that leaves early is its own business.
                let _ = serve(connection.unwrap(), &elsewhere, &mut there.lock().unwrap());
            }
        });
        Self { address, world, cache: tempfile::tempdir().unwrap() }
    }

    fn hub(&self, token: Option<&str>) -> Hub {
        let wire = Wire::new(Some(self.address.clone()), token.map(str::to_string));
        Hub { cache: self.cache.path().into(), wire: Some(wire) }
    }

    /// The same cache with nobody to be asked.
    fn offline(&self) -> Hub {
        Hub { cache: self.cache.path().into(), wire: None }
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap());
    }

    /// The requests since this was last asked.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().seen)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.cache.path().join("models--lab--net").join(path)
    }
}

fn serve(mut connection: TcpStream, elsewhere: &str, world: &mut World) -> io::Result<()> {
    let mut lines = BufReader::new(connection.try_clone()?).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let (method, path) = request.strip_suffix(" HTTP/1.1").and_then(|text| text.split_once(' ')).unwrap_or_default();
    let told = [method, path].into_iter().chain(header("range")).chain(header("authorization").map(|_| "token"));
    world.seen.push(told.collect::<Vec<_>>().join(" "));

    let mut answer = |status: u16, more: &str, body: &[u8], sent: usize| {
        let length = body.len();
        write!(connection, "HTTP/1.1 {status} So\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n")?;
        if method == "HEAD" { Ok(()) } else { connection.write_all(&body[..sent.min(length)]) }
    };
    if let Some(status) = world.refusal {
        return answer(status, "", b"no", 2);
    }
    if path.starts_with(&format!("/api/models/{REPOSITORY}/revision/")) {
        let siblings: Vec<_> = world.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
        return answer(200, "", body.as_bytes(), usize::MAX);
    }
    // An earlier name of the repository.
    if let Some(rest) = path.strip_prefix("/api/models/old/net") {
        return answer(307, &format!("Location: /api/models/{REPOSITORY}{rest}\r\n"), b"", 0);
    }
    if let Some(rest) = path.strip_prefix("/old/net") {
        return answer(307, &format!("Location: /{REPOSITORY}{rest}\r\n"), b"moved", 5);
    }
    if let Some(name) = path.strip_prefix(&format!("/{REPOSITORY}/resolve/{COMMIT}/")) {
        let Some(body) = world.files.get(name) else { return answer(404, "", b"", 0) };
        if !name.ends_with(".safetensors") {
            return answer(200, &format!("ETag: \"{}\"\r\n", "5e".repeat(20)), body, usize::MAX);
        }
        let (etag, size) = (hex(&Sha256::digest(body)), body.len());
        let linked = format!("X-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {size}\r\n");
        return answer(302, &format!("{linked}Location: {elsewhere}/elsewhere/{name}\r\n"), b"elsewhere", 9);
    }
    let Some(body) = path.strip_prefix("/elsewhere/").and_then(|name| world.files.get(name)) else {
        return answer(404, "", b"", 0);
    };
    let mut body = body.clone();
    if world.wrong {
        body[0] ^= 1;
    }
    let start: Option<usize> =
        header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let sent = world.cuts.pop_front().unwrap_or(usize::MAX);
    match start.filter(|_| world.ranges) {
        Some(start) if start >= body.len() => answer(416, "", b"", 0),
        Some(start) => {
            let range =
                format!("Content-Range: bytes {start}-{}/{}\r\nETag: \"its own\"\r\n", body.len() - 1, body.len());
            answer(206, &range, &body[start..], sent)
        }
        None => answer(200, "ETag: \"its own\"\r\n", &body, sent),
    }
}

fn address(text: &str) -> Address {
    Address::of(Path::new(text)).unwrap().unwrap()
}

/// One sentence, and exit code 2: the command is wrong.
fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    said(2, result)
}

/// One sentence, and exit code 1: the network, the hub or the disk is to blame.
fn failure<T: std::fmt::Debug>(result: Result<T>) -> String {
    said(1, result)
}

fn said<T: std::fmt::Debug>(code: u8, result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), code, "{error}");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// So long that it does not come in one piece.
fn bytes(seed: usize) -> Vec<u8> {
    (0..300_000).map(|i| (i * 7 + i / 251 + seed) as u8).collect()
}

#[test]
fn addresses() {
    for (text, repository, revision, file, shown) in [
        ("hf:a/b", "a/b", "main", "", "hf:a/b"),
        ("hf:a/b/", "a/b", "main", "", "hf:a/b"),
        ("hf:a/b@v1.0", "a/b", "v1.0", "", "hf:a/b@v1.0"),
        (
            "hf:a/b@refs%2Fpr%2F1/c/d.safetensors",
            "a/b",
            "refs/pr/1",
            "c/d.safetensors",
            "hf:a/b@refs%2Fpr%2F1/c/d.safetensors",
        ),
        ("hf:a/b/d.safetensors", "a/b", "main", "d.safetensors", "hf:a/b/d.safetensors"),
    ] {
        let found = address(text);
        assert_eq!((&*found.repository, &*found.revision, &*found.file), (repository, revision, file), "{text}");
        assert_eq!(found.to_string(), shown);
    }
    for wrong in ["hf:", "hf:a", "hf:/b", "hf:a/b@", "hf:a/b/../c", "hf:a/b@../c", "hf:a b/c", "hf:a/b//etc"] {
        let text = refusal(Address::of(Path::new(wrong)));
        assert!(text.starts_with(wrong) && text.contains("hf:owner/name@revision"), "{text}");
    }
    for other in ["a/b", "./hf:a/b", "HF:a/b"] {
        assert_eq!(Address::of(Path::new(other)).unwrap(), None);
        assert!(!is_address(Path::new(other)));
        assert_eq!(pinned(Path::new(other)).unwrap(), Path::new(other));
    }
}

#[test]
fn of_a_repository_the_weights_are_chosen() {
    let choose = |text: &str, files: &[&str]| {
        address(text).choose(&files.iter().map(|file| file.to_string()).collect::<Vec<_>>())
    };
    let whole = ["model.safetensors", "adapter.safetensors", "model.safetensors.index.json", "pytorch_model.bin"];
    assert_eq!(choose("hf:a/b", &whole).unwrap(), "model.safetensors");
    assert_eq!(choose("hf:a/b/adapter.safetensors", &whole).unwrap(), "adapter.safetensors");
    let one = ["open_clip.safetensors", "config.json", "unet/x.fp16.safetensors", "unet/x.safetensors"];
    assert_eq!(choose("hf:a/b", &one).unwrap(), "open_clip.safetensors");
    let shards = ["m.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"];
    assert_eq!(choose("hf:a/b", &shards).unwrap(), "m.safetensors.index.json");
    let several = refusal(choose("hf:a/b@v1/unet", &one));
    assert!(several.contains("hf:a/b@v1/unet/x.fp16.safetensors, x.safetensors"), "{several}");
    for (text, files) in
        [("hf:a/b", &["pytorch_model.bin"][..]), ("hf:a/b/no.safetensors", &whole), ("hf:a/b/vae", &one)]
    {
        let none = refusal(choose(text, files));
        assert!(none.contains(text) && none.contains(files[0]), "{none}");
    }
    // A pickle by its name.
    assert!(refusal(choose("hf:a/b/pytorch_model.bin", &whole)).contains("no .safetensors file"));
}

#[test]
fn a_file_is_fetched_once_into_the_layout_of_the_python_libraries() {
    let (weights, other) = (bytes(0), bytes(1));
    let server = Server::of(&[("config.json", b"{}"), ("model.safetensors", &weights), ("b/c/x.safetensors", &other)]);
    let hub = server.hub(None);
    let found = hub.find(&address("hf:lab/net")).unwrap();
    assert_eq!(found.to_string(), format!("hf:lab/net@{COMMIT}/model.safetensors"));
    let place = server.at(&format!("snapshots/{COMMIT}/model.safetensors"));
    assert_eq!(hub.place(&found), place);
    assert_eq!(fs::read(&place).unwrap(), weights);
    let sha = hex(&Sha256::digest(&weights));
    assert_eq!(fs::read_link(&place).unwrap(), Path::new("../../blobs").join(&sha));
    assert_eq!(fs::read_to_string(server.at("refs/main")).unwrap(), COMMIT);
    let blobs: Vec<_> = fs::read_dir(server.at("blobs")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(blobs, [&*sha], "nothing is left over");
    assert!(server.cache.path().join(format!(".locks/models--lab--net/{sha}.lock")).is_file());
    let resolve = format!("/lab/net/resolve/{COMMIT}/model.safetensors");
    let requests = [
        "GET /api/models/lab/net/revision/main".to_string(),
        format!("HEAD {resolve}"),
        format!("GET {resolve}"),
        "GET /elsewhere/model.safetensors".to_string(),
    ];
    assert_eq!(server.seen(), requests);

    // From now on nobody is asked.
    for text in ["hf:lab/net", "hf:lab/net/model.safetensors", &format!("hf:lab/net@{COMMIT}"), &found.to_string()] {
        assert_eq!(hub.find(&address(text)).unwrap(), found);
        assert_eq!(server.offline().find(&address(text)).unwrap(), found);
    }
    assert!(server.seen().is_empty());

    // Another file of the same commit, deeper down.
    let deep = hub.find(&address(&format!("hf:lab/net@{COMMIT}/b/c"))).unwrap();
    assert_eq!(deep.file, "b/c/x.safetensors");
    assert_eq!(fs::read(hub.place(&deep)).unwrap(), other);
    assert!(fs::read_link(hub.place(&deep)).unwrap().starts_with("../../../../blobs"));
    assert!(!server.at("refs").join(COMMIT).exists());
    // A link that leads nowhere is laid again.
    fs::remove_file(server.at("blobs").join(&sha)).unwrap();
    assert_eq!(fs::read(hub.place(&hub.find(&address("hf:lab/net")).unwrap())).unwrap(), weights);
}

#[test]
fn a_repository_under_its_earlier_name_is_followed() {
    let weights = bytes(0);
    let server = Server::of(&[("model.safetensors", &weights)]);
    let hub = server.hub(Some("secret"));
    let found = hub.find(&address("hf:old/net@v1")).unwrap();
    assert_eq!(fs::read(hub.place(&found)).unwrap(), weights);
    assert_eq!(fs::read_to_string(server.cache.path().join("models--old--net/refs/v1")).unwrap(), COMMIT);
    // The other place gets no token.
    let seen = server.seen();
    assert!(
        seen[0].ends_with("token") && seen.iter().all(|line| !line.contains("elsewhere") || !line.ends_with("token"))
    );
}

#[test]
fn what_is_cut_is_gone_on_with() {
    let weights = bytes(0);
    for ranges in [true, false] {
        let server = Server::of(&[("model.safetensors", &weights)]);
        let hub = server.hub(None);
        server.change(|world| {
            world.ranges = ranges;
            // The second answer brings nothing new.
            world.cuts = if ranges { [1000, 0] } else { [1000, 1000] }.into();
        });
        let text = failure(hub.find(&address("hf:lab/net")));
        assert!(text.contains("after 1000 of 300000 bytes"), "{text}");
        assert!(text.contains("check the network and run this again"), "{text}");
        assert!(!server.at("refs").exists(), "nothing stands for what is not there");
        let part = server.at("blobs").join(format!("{}.incomplete", hex(&Sha256::digest(&weights))));
        assert_eq!(fs::metadata(&part).unwrap().len(), 1000);
        server.seen();

        // Another process, cut twice more.
        server.change(|world| world.cuts = if ranges { [70_000, 1].into() } else { [70_000].into() });
        let found = server.hub(None).find(&address("hf:lab/net")).unwrap();
        assert_eq!(fs::read(hub.place(&found)).unwrap(), weights);
        let asked = server.seen().join("\n");
        let starts = if ranges { &["bytes=1000-", "bytes=71000-", "bytes=71001-"][..] } else { &["bytes=70000-"] };
        assert!(starts.iter().all(|start| asked.contains(start)), "{asked}");
        assert!(!part.exists());
    }
}

#[test]
fn a_file_with_another_hash_is_refused_and_removed() {
    let weights = bytes(0);
    let server = Server::of(&[("model.safetensors", &weights)]);
    let hub = server.hub(None);
    server.change(|world| world.wrong = true);
    let text = failure(hub.find(&address("hf:lab/net")));
    assert!(text.contains("not what the hub announced") && text.contains("run this again"), "{text}");
    assert_eq!(fs::read_dir(server.at("blobs")).unwrap().count(), 0);
    server.change(|world| world.wrong = false);
    let part = server.at("blobs").join(format!("{}.incomplete", hex(&Sha256::digest(&weights))));
    // What another left, too long and of other bytes.
    fs::write(&part, vec![0; 300_001]).unwrap();
    assert!(failure(hub.find(&address("hf:lab/net"))).contains("300001 bytes"));
    fs::write(&part, &weights[..5]).unwrap();
    assert!(hub.find(&address("hf:lab/net")).is_ok());
}

#[test]
fn refusals_say_what_to_do() {
    let server = Server::of(&[("model.safetensors", &bytes(0))]);
    for (status, told) in [
        (401, "check the name, accept the terms at"),
        (403, "set HF_TOKEN to a token that may read it"),
        (404, "no such repository, revision or file"),
        (503, "try again later"),
    ] {
        server.change(|world| world.refusal = Some(status));
        let code = if status == 503 { 1 } else { 2 };
        let text = said(code, server.hub(Some("wrong")).find(&address("hf:lab/net@v1")));
        assert!(
            text.starts_with("hf:lab/net@v1: ") && text.contains(told) && text.contains(&status.to_string()),
            "{text}"
        );
    }
    server.change(|world| world.refusal = Some(200));
    let text = refusal(server.hub(None).find(&address("hf:lab/net")));
    assert!(text.contains("does not answer as the hub does") && text.contains("HF_ENDPOINT"), "{text}");

    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub { wire: Some(Wire::new(Some(format!("http://{closed}")), None)), ..server.offline() };
    let text = failure(hub.find(&address("hf:lab/net")));
    assert!(text.contains("does not answer") && text.contains("check the network"), "{text}");
}

#[test]
fn shards_come_with_their_index() {
    let index = serde_json::json!({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).to_string();
    let (one, two) = (bytes(1), bytes(2));
    let files = [("net/m.safetensors.index.json", index.as_bytes()), ("net/m-1.safetensors", &one)];
    let server = Server::of(&[&files[..], &[("net/m-2.safetensors", &two)]].concat());
    let hub = server.hub(None);
    let found = hub.find(&address("hf:lab/net/net")).unwrap();
    assert_eq!(found.file, "net/m.safetensors.index.json");
    assert_eq!(fs::read(hub.place(&found).with_file_name("m-2.safetensors")).unwrap(), two);
    assert_eq!(server.offline().find(&address("hf:lab/net/net")).unwrap(), found);
    // Not without all of them: the lost one alone is fetched.
    fs::remove_file(hub.place(&found).with_file_name("m-1.safetensors")).unwrap();
    fs::remove_file(server.at("blobs").join(hex(&Sha256::digest(&one)))).unwrap();
    assert!(server.offline().find(&found).is_err());
    server.seen();
    assert_eq!(hub.find(&found).unwrap(), found);
    let fetched: Vec<_> = server.seen().into_iter().filter(|line| line.starts_with("GET /else")).collect();
    assert_eq!(fetched, ["GET /elsewhere/net/m-1.safetensors"]);

    let server = Server::of(&files);
    // One safetensors file would be taken for the model.
    let text = refusal(server.hub(None).find(&address("hf:lab/net/net/m.safetensors.index.json")));
    assert!(text.contains("lists the shard m-2.safetensors"), "{text}");
}

#[test]
fn what_python_fetched_is_used_and_nobody_is_asked() {
    let server = Server::of(&[("model.safetensors", &bytes(0)), ("odd.safetensors", &bytes(1))]);
    let snapshot = server.at(&format!("snapshots/{COMMIT}"));
    for folder in [&snapshot, &server.at("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(server.at("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("odd.safetensors"), "odd").unwrap();
    let file = |hub: &Hub, text: &str| Ok::<_, Error>(hub.find(&address(text))?.file);
    assert_eq!(file(&server.hub(None), "hf:lab/net/odd.safetensors").unwrap(), "odd.safetensors");
    // The one that is here is the one that is meant only where nobody can be asked.
    assert_eq!(file(&server.offline(), "hf:lab/net").unwrap(), "odd.safetensors");
    assert!(server.seen().is_empty());
    assert_eq!(file(&server.hub(None), "hf:lab/net").unwrap(), "model.safetensors");
    for text in ["hf:lab/other", "hf:lab/net@v2", "hf:lab/net/none.safetensors"] {
        let text = refusal(server.offline().find(&address(text)));
        assert!(text.contains("HF_HUB_OFFLINE") && text.contains(&server.cache.path().display().to_string()), "{text}");
    }
}

#[test]
fn two_at_once_fetch_once() {
    let weights = bytes(0);
    let server = Server::of(&[("model.safetensors", &weights)]);
    std::thread::scope(|scope| {
        let fetching: Vec<_> =
            (0..4).map(|_| scope.spawn(|| server.hub(None).find(&address("hf:lab/net")).unwrap())).collect();
        fetching.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    let fetched = server.seen().iter().filter(|line| line.contains("elsewhere")).count();
    assert_eq!((fetched, fs::read(server.at(&format!("snapshots/{COMMIT}/model.safetensors"))).unwrap()), (1, weights));
}

#[test]
fn a_disk_that_refuses_is_named() {
    let weights = bytes(0);
    let server = Server::of(&[("model.safetensors", &weights)]);
    let part = server.at("blobs").join(format!("{}.incomplete", hex(&Sha256::digest(&weights))));
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    symlink("/dev/full", &part).unwrap();
    let text = failure(server.hub(None).find(&address("hf:lab/net")));
    assert!(text.contains("No space left") && text.contains("incomplete") && text.contains("make room"), "{text}");
    let file = server.cache.path().join("file");
    fs::write(&file, "").unwrap();
    let text = refusal(Hub { cache: file, ..server.hub(None) }.find(&address("hf:lab/net")));
    assert!(text.contains("cannot create") && text.contains("HF_HOME"), "{text}");
}
