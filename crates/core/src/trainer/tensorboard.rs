//! TensorBoard event files: scalars, pictures, text and hyper-parameters.
//!
//! The records are framed by tensorboard-rs and hold messages of tensorboard-proto. That crate's own file writer has a
//! thread that panics when the disk is full; its record writer takes any file, and here every failure is an [`Error`].

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Cursor, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use image::{ImageFormat, RgbImage};
use protobuf::well_known_types::Value;
use protobuf::{Message, RepeatedField};
use tensorboard_proto::api::{DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::plugin_hparams::{HParamsPluginData, SessionEndInfo, SessionStartInfo};
use tensorboard_proto::summary::{Summary, Summary_Image, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::types::DataType as Kind;
use tensorboard_rs::record_writer::RecordWriter;

use crate::{Error, Result};

const PREFIX: &str = "events.out.tfevents.";

/// Writes one event file. Records reach the disk at [`TensorBoard::flush`], at the latest when it is dropped (errors are
/// then lost, so flush first).
pub(crate) struct TensorBoard {
    path: PathBuf,
    records: RecordWriter<BufWriter<File>>,
}

/// The value of a hyper-parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HparamValue {
    Number(f64),
    Text(String),
    Flag(bool),
}

impl From<&serde_json::Value> for HparamValue {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Bool(b) => HparamValue::Flag(*b),
            serde_json::Value::Number(n) => HparamValue::Number(n.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(s) => HparamValue::Text(s.clone()),
            other => HparamValue::Text(other.to_string()),
        }
    }
}

impl TensorBoard {
    /// Opens a new event file in `folder`, which is made if missing; files of earlier parts of the run stay.
    ///
    /// `first_step` is the first step that will be written. What a run that is continued had written from that step on,
    /// after its last checkpoint, TensorBoard then forgets.
    pub(crate) fn create(folder: &Path, first_step: u64) -> Result<TensorBoard> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (path, file) = unused(folder)?;
        let mut board = TensorBoard { path, records: RecordWriter::new(BufWriter::new(file)) };
        let mut version = Event::new();
        version.set_file_version("brain.Event:2".into());
        board.write(version, 0)?;
        let mut start = SessionLog::new();
        start.set_status(SessionLog_SessionStatus::START);
        let mut event = Event::new();
        event.set_session_log(start);
        board.write(event, first_step)?;
        board.flush()?;
        Ok(board)
    }

    /// A number; TensorBoard keeps it as f32.
    pub(crate) fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        let mut summary = Summary_Value::new();
        summary.set_simple_value(value as f32);
        self.summary(tag, step, summary)
    }

    /// A picture, kept as PNG.
    pub(crate) fn image(&mut self, tag: &str, step: u64, picture: &RgbImage) -> Result<()> {
        let mut png = Cursor::new(Vec::new());
        picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::Failed(format!("cannot encode the picture {tag}: {error}")))?;
        let mut image = Summary_Image::new();
        image.set_height(picture.height() as i32);
        image.set_width(picture.width() as i32);
        image.set_colorspace(3); // RGB
        image.set_encoded_image_string(png.into_inner());
        let mut summary = Summary_Value::new();
        summary.set_image(image);
        self.summary(tag, step, summary)
    }

    /// Text, shown as Markdown.
    pub(crate) fn text(&mut self, tag: &str, step: u64, markdown: &str) -> Result<()> {
        let mut tensor = TensorProto::new();
        tensor.set_dtype(Kind::DT_STRING);
        tensor.mut_tensor_shape(); // A scalar.
        tensor.set_string_val(RepeatedField::from_vec(vec![markdown.as_bytes().to_vec()]));
        let mut summary = Summary_Value::new();
        summary.set_tensor(tensor);
        summary.set_metadata(metadata("text", Vec::new()));
        self.summary(tag, step, summary)
    }

    /// The run's row in the HPARAMS tab. Its metrics are the last values of the scalars `metric_tags`, so the row fills as
    /// the run goes on. Written once, at the start.
    pub(crate) fn hparams(&mut self, values: &[(String, HparamValue)], metric_tags: &[String]) -> Result<()> {
        let mut experiment = Experiment::new();
        experiment.set_time_created_secs(now());
        experiment.set_hparam_infos(values.iter().map(|(name, value)| info(name, value)).collect());
        experiment.set_metric_infos(metric_tags.iter().map(|tag| metric(tag)).collect());
        let mut data = HParamsPluginData::new();
        data.set_experiment(experiment);
        self.hparams_record("_hparams_/experiment", &data)?;

        let mut start = SessionStartInfo::new();
        start.set_start_time_secs(now());
        start.set_hparams(values.iter().map(|(name, value)| (name.clone(), value.to_proto())).collect());
        let mut data = HParamsPluginData::new();
        data.set_session_start_info(start);
        self.hparams_record("_hparams_/session_start_info", &data)
    }

    /// Tells the HPARAMS tab that the run has ended, and whether well.
    pub(crate) fn hparams_end(&mut self, success: bool) -> Result<()> {
        let mut end = SessionEndInfo::new();
        end.set_status(if success { Status::STATUS_SUCCESS } else { Status::STATUS_FAILURE });
        end.set_end_time_secs(now());
        let mut data = HParamsPluginData::new();
        data.set_session_end_info(end);
        self.hparams_record("_hparams_/session_end_info", &data)
    }

    /// Hands what was written to the system, so that a TensorBoard that is watching sees it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.records.flush().map_err(Error::io("write", &self.path))
    }

    /// The HPARAMS tab reads a record's metadata only, but TensorBoard skips records without a value.
    fn hparams_record(&mut self, tag: &str, data: &HParamsPluginData) -> Result<()> {
        let mut nothing = TensorProto::new();
        nothing.set_dtype(Kind::DT_FLOAT);
        nothing.mut_tensor_shape().mut_dim().push_default().set_size(0);
        let mut summary = Summary_Value::new();
        summary.set_tensor(nothing);
        summary.set_metadata(metadata("hparams", encode(data)?));
        self.summary(tag, 0, summary)
    }

    fn summary(&mut self, tag: &str, step: u64, mut value: Summary_Value) -> Result<()> {
        value.set_tag(tag.into());
        let mut summary = Summary::new();
        summary.set_value(RepeatedField::from_vec(vec![value]));
        let mut event = Event::new();
        event.set_summary(summary);
        self.write(event, step)
    }

    fn write(&mut self, mut event: Event, step: u64) -> Result<()> {
        event.set_wall_time(now());
        event.set_step(step as i64);
        self.records.write(&encode(&event)?).map_err(Error::io("write", &self.path))
    }
}

impl HparamValue {
    fn to_proto(&self) -> Value {
        let mut value = Value::new();
        match self {
            HparamValue::Number(number) => value.set_number_value(*number),
            HparamValue::Text(text) => value.set_string_value(text.clone()),
            HparamValue::Flag(flag) => value.set_bool_value(*flag),
        }
        value
    }
}

/// Makes a file whose name no other writer has: TensorBoard takes any name with `tfevents` in it and reads the files of a
/// folder in the order of their names, so the newest must be the last even where the clock was set back.
fn unused(folder: &Path) -> Result<(PathBuf, File)> {
    let there = fs::read_dir(folder)
        .map_err(Error::io("read", folder))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
    let seconds = there.max().map_or(0, |last| last.saturating_add(1)).max(now() as u64);
    let process = std::process::id();
    let mut number = 0;
    loop {
        let path = folder.join(format!("{PREFIX}{seconds:010}.{process}.{number:04}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
}

fn info(name: &str, value: &HparamValue) -> HParamInfo {
    let mut info = HParamInfo::new();
    info.set_name(name.into());
    info.set_field_type(match value {
        HparamValue::Number(_) => DataType::DATA_TYPE_FLOAT64,
        HparamValue::Text(_) => DataType::DATA_TYPE_STRING,
        HparamValue::Flag(_) => DataType::DATA_TYPE_BOOL,
    });
    info
}

fn metric(tag: &str) -> MetricInfo {
    let mut name = MetricName::new();
    name.set_tag(tag.into());
    let mut info = MetricInfo::new();
    info.set_name(name);
    info
}

fn metadata(plugin: &str, content: Vec<u8>) -> SummaryMetadata {
    let mut data = SummaryMetadata_PluginData::new();
    data.set_plugin_name(plugin.into());
    data.set_content(content);
    let mut metadata = SummaryMetadata::new();
    metadata.set_plugin_data(data);
    metadata
}

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(|error| Error::Failed(format!("cannot encode a TensorBoard record: {error}")))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    /// CRC-32C by the definition, bit by bit, and TFRecord's mask.
    fn masked_crc(bytes: &[u8]) -> u32 {
        let crc = !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
        });
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// Length u64, its CRC, the event, its CRC; over and over to the end of the file.
    fn events(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let crc = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let data = &rest[12..12 + length];
            assert_eq!((crc(8), crc(12 + length)), (masked_crc(&rest[..8]), masked_crc(data)));
            events.push(Event::parse_from_bytes(data).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    fn sample(folder: &Path) -> Vec<Event> {
        let mut board = TensorBoard::create(folder, 1).unwrap();
        let values = [
            ("optim.lr".to_string(), HparamValue::Number(0.01)),
            ("optim.kind".to_string(), HparamValue::Text("sgd".into())),
            ("optim.nesterov".to_string(), HparamValue::Flag(true)),
        ];
        board.hparams(&values, &["test/error".to_string()]).unwrap();
        board.scalar("train/loss", 1, 2.5).unwrap();
        board.scalar("train/loss", 2, 1.25).unwrap();
        board.scalar("test/error", 2, 0.75).unwrap();
        board.image("test/grid", 2, &RgbImage::from_pixel(7, 5, Rgb([1, 2, 3]))).unwrap();
        board.text("config", 0, "a **bold** µ").unwrap();
        board.hparams_end(true).unwrap();
        board.flush().unwrap();
        events(&board.path)
    }

    fn values(events: &[Event], tag: &str) -> Vec<(i64, Summary_Value)> {
        let of = |event: &Event| event.get_summary().get_value().first().map(|value| (event.get_step(), value.clone()));
        events.iter().filter_map(of).filter(|(_, value)| value.get_tag() == tag).collect()
    }

    #[test]
    fn records_are_framed_as_tensorboard_expects_and_read_back() {
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
        let folder = tempfile::tempdir().unwrap();
        let events = sample(folder.path());
        assert_eq!(events[0].get_file_version(), "brain.Event:2");
        assert_eq!(
            (events[1].get_session_log().get_status(), events[1].get_step()),
            (SessionLog_SessionStatus::START, 1)
        );
        let loss = values(&events, "train/loss");
        assert_eq!([(1, 2.5), (2, 1.25)], [0, 1].map(|i: usize| (loss[i].0, loss[i].1.get_simple_value())));
        let image = values(&events, "test/grid")[0].1.get_image().clone();
        let decoded = image::load_from_memory(image.get_encoded_image_string()).unwrap().to_rgb8();
        assert_eq!(decoded, RgbImage::from_pixel(7, 5, Rgb([1, 2, 3])));
        assert_eq!((image.get_width(), image.get_height()), (7, 5));
        let text = &values(&events, "config")[0].1;
        assert_eq!(text.get_metadata().get_plugin_data().get_plugin_name(), "text");
        assert_eq!(text.get_tensor().get_string_val()[0], "a **bold** µ".as_bytes());
        assert!(events.iter().all(|event| event.get_wall_time() > 1.6e9));
    }

    #[test]
    fn hparams_records_decode() {
        let folder = tempfile::tempdir().unwrap();
        let events = sample(folder.path());
        let data = |name: &str| -> HParamsPluginData {
            let value = &values(&events, &format!("_hparams_/{name}"))[0].1;
            let plugin = value.get_metadata().get_plugin_data();
            assert_eq!(plugin.get_plugin_name(), "hparams");
            HParamsPluginData::parse_from_bytes(plugin.get_content()).unwrap()
        };
        let (experiment, start, end) = (data("experiment"), data("session_start_info"), data("session_end_info"));
        assert_eq!(experiment.get_experiment().get_metric_infos()[0].get_name().get_tag(), "test/error");
        let kinds: Vec<_> =
            experiment.get_experiment().get_hparam_infos().iter().map(HParamInfo::get_field_type).collect();
        assert_eq!(kinds, [DataType::DATA_TYPE_FLOAT64, DataType::DATA_TYPE_STRING, DataType::DATA_TYPE_BOOL]);
        let hparams = start.get_session_start_info().get_hparams();
        assert_eq!(hparams["optim.lr"].get_number_value(), 0.01);
        assert_eq!(hparams["optim.kind"].get_string_value(), "sgd");
        assert!(hparams["optim.nesterov"].get_bool_value());
        assert_eq!(end.get_session_end_info().get_status(), Status::STATUS_SUCCESS);
    }

    #[test]
    fn writers_in_one_second_have_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let paths: std::collections::BTreeSet<_> =
            (0..20).map(|_| TensorBoard::create(folder.path(), 0).unwrap().path).collect();
        assert_eq!(paths.len(), 20);
        assert!(paths.iter().all(|path| events(path).len() == 2));
    }

    #[test]
    fn a_later_file_has_a_later_name_though_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let ahead = format!("{PREFIX}{}.1.0000", now() as u64 + 86_400);
        fs::write(folder.path().join(&ahead), b"").unwrap();
        let later = TensorBoard::create(folder.path(), 0).unwrap().path;
        assert!(later.file_name().unwrap().to_str().unwrap() > ahead.as_str(), "{}", later.display());
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        // Every write to /dev/full fails with "no space left on device".
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut board = TensorBoard { path: "events".into(), records: RecordWriter::new(BufWriter::new(file)) };
        board.scalar("a", 0, 1.0).unwrap();
        let error = board.flush().unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull), "{error}");
        let long = "x".repeat(100_000); // More than the buffer holds.
        assert!(matches!(board.text("b", 0, &long), Err(Error::Io { .. })));
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(TensorBoard::create(file.path(), 0), Err(Error::Io { .. })));
    }

    /// Runs only where TensorBoard is installed for it.
    #[test]
    fn tensorboard_itself_reads_the_file() {
        let home = std::env::var("HOME").unwrap_or_default();
        let python = Path::new(&home).join(".cache/repro/tb/bin/python");
        if !python.exists() {
            return;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/fixtures/read_events.py");
        let read = |folder: &Path| -> serde_json::Value {
            let mut command = std::process::Command::new(&python);
            let output = command.arg(script).arg(folder).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            serde_json::from_slice(&output.stdout).unwrap()
        };
        let continued = tempfile::tempdir().unwrap();
        for (first, last, value) in [(1, 4, 1.0), (3, 3, 2.0)] {
            let mut board = TensorBoard::create(continued.path(), first).unwrap();
            (first..=last).for_each(|step| board.scalar("loss", step, value).unwrap());
        }
        assert_eq!(
            read(continued.path())["scalars"]["loss"],
            serde_json::json!([[1, 1.0], [2, 1.0], [3, 2.0]]),
            "what was written after the checkpoint is forgotten"
        );

        let folder = tempfile::tempdir().unwrap();
        sample(folder.path());
        let read = read(folder.path());
        assert_eq!(read["scalars"]["train/loss"], serde_json::json!([[1, 2.5], [2, 1.25]]));
        assert_eq!(read["images"]["test/grid"], serde_json::json!([[2, 7, 5]]));
        assert_eq!(read["texts"]["config"], serde_json::json!([[0, "a **bold** µ"]]));
        let row = &read["hparams"][0];
        let hparams = serde_json::json!({"optim.kind": "sgd", "optim.lr": 0.01, "optim.nesterov": true});
        assert_eq!(row["hparams"], hparams);
        assert_eq!(row["metrics"], serde_json::json!({"test/error": 0.75}));
        assert_eq!(row["status"], "STATUS_SUCCESS");
    }
}
