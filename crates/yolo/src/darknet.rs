//! Darknet's `.weights`: the numbers of a network's convolutions one after the other, in the order of its sections. Of each: with a norm its
//! shift, scale, running mean and running variance, then the kernel; without one its bias, then the kernel.

use repro::weights::{DARKNET, Named};
use repro::{Result, user};
use tch::{Device, Kind, Tensor};

use crate::sections::{PICTURE, Plan, Section};

/// What a norm has, in the order of the file.
const NORM: [&str; 4] = ["bias", "weight", "running_mean", "running_var"];

/// Names and shapes of what section `at`, a convolution that sees so many channels, has in a file.
fn of_conv(at: usize, input: i64, section: &Section) -> Vec<(String, Vec<i64>)> {
    let Section::Conv { filters, size, norm, .. } = section else { return Vec::new() };
    let conv = |name: &str| format!("module_list.{at}.conv_{at}.{name}");
    let mut parts: Vec<_> = match norm {
        true => NORM.iter().map(|name| (format!("module_list.{at}.batch_norm_{at}.{name}"), vec![*filters])).collect(),
        false => vec![(conv("bias"), vec![*filters])],
    };
    parts.push((conv("weight"), vec![*filters, input, *size, *size]));
    parts
}

/// A tensor's name and shape.
type Shaped = (String, Vec<i64>);

/// Names and shapes in the order of the file, a list for each section.
///
/// # Errors
/// Those of [`Plan::check`].
fn order(plan: &Plan) -> Result<Vec<Vec<Shaped>>> {
    let left = plan.check()?;
    let input = |at: usize| if at == 0 { PICTURE } else { left[at - 1] }.channels;
    Ok(plan.sections.iter().enumerate().map(|(at, section)| of_conv(at, input(at), section)).collect())
}

fn count(parts: &[(String, Vec<i64>)]) -> i64 {
    parts.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum()
}

/// Numbers in a file of the network.
///
/// # Errors
/// Those of [`Plan::check`].
pub fn total(plan: &Plan) -> Result<i64> {
    Ok(order(plan)?.iter().map(|parts| count(parts)).sum())
}

/// The plan for as many classes as make `n` numbers; `None` if no number of classes does.
///
/// # Errors
/// Those of [`Plan::check`].
pub fn of_total(plan: &Plan, n: i64) -> Result<Option<Plan>> {
    if total(plan)? == n {
        return Ok(Some(plan.clone()));
    }
    let (one, two) = (total(&plan.for_classes(1))?, total(&plan.for_classes(2))?);
    let more = n - one;
    let fits = two > one && more >= 0 && more % (two - one) == 0;
    Ok(fits.then(|| plan.for_classes(1 + more / (two - one))).filter(|plan| plan.check().is_ok()))
}

/// Gives the numbers of a Darknet file the names that they have in the network; weights that have names already stay.
///
/// A file for another number of classes is laid out as what it is; one that ends between two sections, such as darknet53.conv.74, is the
/// beginning of the network, without what follows.
///
/// # Errors
/// A file of any other length, with how many numbers are missing or too many.
pub fn named(plan: &Plan, mut given: Named) -> Result<Named> {
    let Some(numbers) = given.remove(DARKNET) else { return Ok(given) };
    let n = numbers.size().iter().product::<i64>();
    let plan = of_total(plan, n)?.unwrap_or_else(|| plan.clone());
    let mut named = Named::new();
    let mut start = 0;
    for (at, parts) in order(&plan)?.iter().enumerate() {
        if start == n && start > 0 && !parts.is_empty() {
            // Whole sections and nothing behind them.
            return Ok(named);
        }
        if start + count(parts) > n {
            break;
        }
        for (name, shape) in parts {
            let length = shape.iter().product();
            named.insert(name.clone(), numbers.f_narrow(0, start, length)?.f_view(shape.as_slice())?.copy());
            start += length;
        }
        add_constants(&plan, at, &mut named)?;
    }
    let whole = total(&plan)?;
    match n - whole {
        0 => Ok(named),
        gap => Err(user!(
            "the .weights file holds {n} numbers and this network of {} classes takes {whole}: {} are {}",
            plan.classes,
            gap.abs(),
            if gap < 0 { "missing" } else { "too many" }
        )),
    }
}

/// What the state dict has of section `at` and the file has not: the counter of a norm, which nothing reads, and the anchors of a scale.
fn add_constants(plan: &Plan, at: usize, named: &mut Named) -> Result<()> {
    match &plan.sections[at] {
        Section::Conv { norm: true, .. } => {
            let name = format!("module_list.{at}.batch_norm_{at}.num_batches_tracked");
            named.insert(name, Tensor::f_zeros([], (Kind::Int64, Device::Cpu))?);
        }
        Section::Yolo { mask } => {
            let sides: Vec<f32> =
                mask.iter().flat_map(|&anchor| plan.anchors[anchor]).map(|side| side as f32).collect();
            let (sides, n) = (Tensor::f_from_slice(&sides)?, mask.len() as i64);
            named.insert(format!("module_list.{at}.yolo_{at}.anchors"), sides.f_view([n, 2])?);
            named.insert(format!("module_list.{at}.yolo_{at}.anchor_grid"), sides.f_view([1, n, 1, 1, 2])?.copy());
        }
        _ => {}
    }
    Ok(())
}

/// Tensors of a network by their names → in the order of a file.
///
/// # Errors
/// Names that no section of such a file has, or the lack of one.
pub fn numbers(given: &Named) -> Result<Vec<Tensor>> {
    let section = |name: &str| name.strip_prefix("module_list.")?.split('.').next()?.parse::<usize>().ok();
    let stranger = given.keys().find(|name| section(name).is_none());
    if let Some(name) = stranger {
        return Err(user!("{name} has no place in a .weights file, which holds module_list.0, module_list.1, … alone"));
    }
    let mut places: Vec<usize> = given.keys().filter_map(|name| section(name)).collect();
    places.sort_unstable();
    places.dedup();
    let mut numbers = Vec::new();
    for at in places {
        let kernel = format!("module_list.{at}.conv_{at}.weight");
        if !given.contains_key(&kernel) {
            continue;
        }
        let normed = given.contains_key(&format!("module_list.{at}.batch_norm_{at}.weight"));
        let names: Vec<String> = match normed {
            true => NORM.iter().map(|name| format!("module_list.{at}.batch_norm_{at}.{name}")).collect(),
            false => vec![format!("module_list.{at}.conv_{at}.bias")],
        };
        for name in names.iter().chain([&kernel]) {
            let tensor =
                given.get(name).ok_or_else(|| user!("the weights lack {name}, without which no .weights can be"))?;
            numbers.push(tensor.shallow_clone());
        }
    }
    match numbers.is_empty() {
        true => Err(user!("these weights hold no convolution of a network of sections")),
        false => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Network;
    use crate::sections::Variant;
    use repro::golden::{fill, variables};
    use repro::weights::{copy_into, hash, load, write_darknet};
    use tch::nn;

    fn network(plan: &Plan) -> Named {
        let store = nn::VarStore::new(Device::Cpu);
        Network::new(&store.root(), plan.clone()).unwrap();
        fill(&store);
        let mut all = variables(&store);
        // Anchors are constants, which the rule would fill.
        (0..plan.sections.len()).for_each(|at| add_constants(plan, at, &mut all).unwrap());
        all
    }

    fn flat(n: i64) -> Named {
        Named::from([(DARKNET.to_string(), Tensor::arange(n, (Kind::Float, Device::Cpu)))])
    }

    /// Out and in again, by every variant; the file's first numbers are the first norm's shift.
    #[test]
    fn weights_go_out_and_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.weights");
        for variant in [Variant::Yolov3Tiny, Variant::Small, Variant::Yolov1Small] {
            let plan = variant.plan(3);
            let whole = network(&plan);
            write_darknet(&path, &numbers(&whole).unwrap()).unwrap();
            let raw = load(&path).unwrap().0;
            assert_eq!(raw[DARKNET].size(), [total(&plan).unwrap()]);
            let shift = &whole["module_list.0.batch_norm_0.bias"];
            assert!(raw[DARKNET].narrow(0, 0, shift.size()[0]).equal(shift));
            let back = named(&plan, raw).unwrap();
            copy_into(&whole, &back, "the file").unwrap();
            assert_eq!(hash(&back).unwrap(), hash(&network(&plan)).unwrap());
        }
    }

    /// The author's file of the tiny network has 8,858,734 numbers, yolov3's 62,001,757.
    #[test]
    fn files_of_the_author_fit() {
        assert_eq!(total(&Variant::Yolov3Tiny.plan(80)).unwrap(), (35_434_956 - 20) / 4);
        assert_eq!(total(&Variant::Yolov3.plan(80)).unwrap(), (248_007_048 - 20) / 4);
    }

    #[test]
    fn other_classes_and_beginnings_are_known_by_their_length() {
        let plan = Variant::Small.plan(3);
        let found = of_total(&plan, total(&plan.for_classes(20)).unwrap()).unwrap().unwrap();
        assert_eq!((found.classes, found), (20, plan.for_classes(20)));
        assert_eq!(of_total(&plan, total(&plan).unwrap() + 1).unwrap(), None);
        // Without the last convolution of the trunk's first residual, and what follows.
        let trunk: i64 = order(&plan).unwrap()[..4].iter().map(|parts| count(parts)).sum();
        let begun = named(&plan, flat(trunk)).unwrap();
        assert_eq!(begun.keys().filter(|name| name.ends_with("conv_2.weight")).count(), 1);
        assert!(!begun.keys().any(|name| name.contains(".5.")));
        // darknet53.conv.74: 162,482,580 bytes, of which 20 are its header.
        let darknet53: i64 = order(&Variant::Yolov3.plan(1)).unwrap()[..75].iter().map(|parts| count(parts)).sum();
        assert_eq!(darknet53, (162_482_580 - 20) / 4);
    }

    #[test]
    fn other_lengths_are_refused_with_what_is_missing() {
        let plan = Variant::Small.plan(3);
        let whole = total(&plan).unwrap();
        let told = |n: i64| named(&plan, flat(n)).unwrap_err().to_string();
        assert!(told(whole - 5).ends_with("5 are missing"), "{}", told(whole - 5));
        assert!(told(whole + 5).ends_with("5 are too many"), "{}", told(whole + 5));
        let mut lacking = network(&plan);
        lacking.remove("module_list.0.batch_norm_0.bias");
        assert!(numbers(&lacking).unwrap_err().to_string().contains("lack module_list.0.batch_norm_0.bias"));
        lacking.insert("fpn.weight".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
        assert!(numbers(&lacking).unwrap_err().to_string().contains("fpn.weight has no place"));
        assert!(numbers(&Named::new()).unwrap_err().to_string().contains("no convolution"));
    }
}
