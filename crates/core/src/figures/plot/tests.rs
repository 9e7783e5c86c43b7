use super::*;
use image::Rgb;

fn of(points: &[(f64, f64)], log_y: bool) -> Plot {
    Plot { log_y, curves: vec![Curve { points: points.to_vec(), ..Curve::default() }], ..Plot::default() }
}

/// Pixels of the first curve's colour.
fn drawn(picture: &RgbImage) -> Vec<(u32, u32)> {
    let colour = Rgb([COLOURS[0].0, COLOURS[0].1, COLOURS[0].2]);
    picture.enumerate_pixels().filter(|(_, _, pixel)| **pixel == colour).map(|(x, y, _)| (x, y)).collect()
}

#[test]
fn a_horizontal_line_lies_in_the_middle_and_reaches_across() {
    let line = drawn(&plot(&of(&[(0.0, 3.0), (0.5, 3.0), (1.0, 3.0)], false)).unwrap());
    let (left, right) = (line.iter().map(|p| p.0).min().unwrap(), line.iter().map(|p| p.0).max().unwrap());
    assert!(left < 120 && right > SIZE.0 - 40, "{left} to {right}");
    let rows = (line.iter().map(|p| p.1).min().unwrap(), line.iter().map(|p| p.1).max().unwrap());
    assert!(rows.1 - rows.0 <= 2 * MARKER.0 as u32 + 1 && (260..320).contains(&rows.0), "{rows:?}");
}

#[test]
fn degenerate_input_gives_a_picture() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let cases: [&[(f64, f64)]; 10] = [
        &[],
        &[(1.0, 2.0)],
        &[(0.0, 0.0), (0.0, 0.0)],
        &[(nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, -inf)],
        &[(0.0, 1.0), (1.0, 1.0 + 1e-15)],
        &[(1.0, -5.0), (2.0, -6.0)],
        &[(0.0, 1e308), (1.0, -1e308)],
        &[(0.0, 1e-300), (1.0, 2e-300)],
        &[(1e15, 1e-12), (1e15 + 1.0, 1e29)],
        &[(f64::MAX, 1.0), (f64::MIN, 2.0)],
    ];
    for points in cases {
        for log_y in [false, true] {
            // Each point three times, so that there are enough to draw.
            let picture = plot(&of(&[points; 3].concat(), log_y)).unwrap();
            assert_eq!(picture.dimensions(), SIZE, "{points:?}");
        }
    }
    plot(&Plot::default()).unwrap();
}

#[test]
fn skipped_points_leave_the_rest_as_it_was() {
    let clean = plot(&of(&[(0.0, 1.0), (1.5, 2.0), (2.0, 3.0)], false)).unwrap();
    let holed = [(0.0, 1.0), (1.0, f64::NAN), (1.5, 2.0), (2.0, 3.0), (9.0, f64::INFINITY)];
    assert_eq!(clean, plot(&of(&holed, false)).unwrap());
}

#[test]
fn a_curve_below_three_points_is_not_drawn() {
    let points = [(0.0, 1.0), (1.0, 2.0), (2.0, 2.5)];
    for few in [&points[..1], &points[..2], &[(0.0, 1.0), (1.0, f64::NAN), (2.0, 2.0)][..]] {
        let plotted = of(few, false);
        assert!(plotted.is_empty() && drawn(&plot(&plotted).unwrap()).is_empty(), "{few:?}");
    }
    assert!(!of(&points, false).is_empty() && !drawn(&plot(&of(&points, false)).unwrap()).is_empty());
    // Beside a curve that is drawn it changes nothing.
    let curve = |points: &[(f64, f64)]| Curve { points: points.to_vec(), ..Curve::default() };
    let both = Plot { curves: vec![curve(&points), curve(&[(9.0, 9.0), (10.0, 9.0)])], ..Plot::default() };
    assert_eq!(plot(&both).unwrap(), plot(&of(&points, false)).unwrap());
}

#[test]
fn every_point_has_a_marker_and_a_long_curve_keeps_its_last() {
    // A line of 2 pixels is thinner than the markers on it.
    let line = drawn(&plot(&of(&[(0.0, 3.0), (0.5, 3.0), (1.0, 3.0)], false)).unwrap());
    let height = |x: u32| line.iter().filter(|point| point.0 == x).count();
    let (left, right) = (line.iter().map(|p| p.0).min().unwrap(), line.iter().map(|p| p.0).max().unwrap());
    assert!(height((left + right) / 2) >= 8 && height((3 * left + right) / 4) <= 3);
    let long: Vec<_> = (0..201).map(|x| (f64::from(x), 0.0)).collect();
    let marked: Vec<_> = marked(&long).map(|point| point.0).collect();
    assert!(marked.len() <= MARKERS && marked.contains(&200.0), "{marked:?}");
}

#[test]
fn a_level_lies_across_the_plot_and_inside_its_axis() {
    let mut plotted = of(&[(0.0, 1.0), (0.5, 1.2), (1.0, 1.1)], false);
    let without = plot(&plotted).unwrap();
    plotted.levels = vec![Level { label: "paper 2.00".into(), value: 2.0 }];
    let picture = plot(&plotted).unwrap();
    assert_ne!(picture, without);
    let grey = |y: u32| (0..SIZE.0).filter(|&x| picture.get_pixel(x, y) == &Rgb([90, 90, 90])).count();
    let row = (0..SIZE.1).max_by_key(|&y| grey(y)).unwrap();
    let highest = drawn(&picture).iter().map(|point| point.1).min().unwrap();
    assert!(grey(row) > 800 && row < highest, "{} pixels in row {row}, the curve up to {highest}", grey(row));
}

#[test]
fn what_stands_beside_a_curve_has_its_colour() {
    let mut plotted = of(&[(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)], false);
    let alone = drawn(&plot(&plotted).unwrap()).len();
    plotted.curves[0].beside = vec![(0.0, 2.0), (0.5, 2.0), (1.0, 2.0)];
    plotted.beside = "training".into();
    assert!(drawn(&plot(&plotted).unwrap()).len() > alone + 800);
}

#[test]
fn a_log_axis_makes_powers_a_straight_line() {
    let powers: Vec<(f64, f64)> = (0..5).map(|x| (f64::from(x), 10f64.powi(x - 3))).collect();
    let drawn = drawn(&plot(&of(&powers, true)).unwrap());
    // The middle of the line in each column; where more pixels lie over each other, a marker does.
    let middle = |x: u32| {
        let column: Vec<_> = drawn.iter().filter(|point| point.0 == x).map(|point| f64::from(point.1)).collect();
        (1..=4).contains(&column.len()).then(|| (f64::from(x), column.iter().sum::<f64>() / column.len() as f64))
    };
    let line: Vec<_> = (0..SIZE.0).filter_map(middle).collect();
    let (first, last) = (line[0], line[line.len() - 1]);
    let off = |&(x, y): &(f64, f64)| {
        let t = (x - first.0) / (last.0 - first.0);
        (y - (first.1 + t * (last.1 - first.1))).abs()
    };
    assert!(line.len() > 600 && line.iter().all(|point| off(point) < 5.0), "{line:?}");
}

#[test]
fn a_log_axis_has_numbers_at_any_length() {
    for (low, high) in [(0.7, 2.8), (0.013, 3.1), (1e-8, 1.0), (1e-30, 1e30), (5.0, 5.5)] {
        let range = log_range([low, high].into_iter());
        let ticks = log_ticks(&range).len();
        assert!((3..=12).contains(&ticks), "{range:?}: {ticks}");
    }
}

#[test]
fn values_that_lie_close_to_each_other_fill_the_axis() {
    let points = [(0.0, 5.5), (1.0, 5.2), (2.0, 5.1)];
    assert_eq!(plot(&of(&points, true)).unwrap(), plot(&of(&points, false)).unwrap());
    let points = [(0.0, 5.5), (1.0, 1.2), (2.0, 1.1)];
    assert_ne!(plot(&of(&points, true)).unwrap(), plot(&of(&points, false)).unwrap());
}

#[test]
fn a_band_surrounds_its_line() {
    let band = vec![(0.0, 0.0, 2.0), (0.5, 0.0, 2.0), (1.0, 0.0, 2.0)];
    let points = vec![(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)];
    let curve = Curve { label: "seeds".into(), points, band, ..Curve::default() };
    let picture = plot(&Plot { curves: vec![curve], ..Plot::default() }).unwrap();
    let tinted = |pixel: &Rgb<u8>| pixel[2] > 230 && pixel[0] < 220;
    assert!(picture.pixels().filter(|pixel| tinted(pixel)).count() > 200_000);
}

#[test]
fn axis_numbers_are_short() {
    let numbers = [0.0, 0.5, 10.0, 60000.0, -2.25, 1e-5, 3e8].map(number);
    assert_eq!(numbers, ["0", "0.5", "10", "60000", "−2.25", "1e−5", "3e8"]);
}
