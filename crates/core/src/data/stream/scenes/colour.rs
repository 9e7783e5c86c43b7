//! Colours by hue, saturation and value.

/// Turns the hue by so many turns and multiplies saturation and value, pixel by pixel (RGB bytes). As in Darknet nothing is cut off but the
/// result, to a byte.
pub(super) fn distort(pixels: &mut [u8], turn: f32, saturation: f32, value: f32) {
    for pixel in pixels.as_chunks_mut::<3>().0 {
        let [h, s, v] = to_hsv(pixel.map(|byte| f32::from(byte) / 255.0));
        let h = h + turn;
        let rgb = to_rgb([h - h.floor(), s * saturation, v * value]);
        *pixel = rgb.map(|part| (part.clamp(0.0, 1.0) * 255.0).round() as u8);
    }
}

/// Hue in turns [0, 1), saturation and value in [0, 1]; grey has hue 0.
fn to_hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let span = most - least;
    if span <= 0.0 {
        return [0.0, 0.0, most];
    }
    let sixth = if r == most {
        (g - b) / span
    } else if g == most {
        2.0 + (b - r) / span
    } else {
        4.0 + (r - g) / span
    };
    [if sixth < 0.0 { sixth / 6.0 + 1.0 } else { sixth / 6.0 }, span / most, most]
}

fn to_rgb([h, s, v]: [f32; 3]) -> [f32; 3] {
    if s == 0.0 {
        return [v; 3];
    }
    let sixth = h * 6.0;
    let (index, f) = (sixth.floor(), sixth - sixth.floor());
    let (p, q, t) = (v * (1.0 - s), v * (1.0 - s * f), v * (1.0 - s * (1.0 - f)));
    match index as i32 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn worked_colours() {
        assert_eq!(to_hsv([1.0, 0.0, 0.0]), [0.0, 1.0, 1.0]);
        assert_eq!(to_hsv([0.0, 0.5, 0.0]), [1.0 / 3.0, 1.0, 0.5]);
        assert_eq!(to_hsv([0.2, 0.2, 0.2]), [0.0, 0.0, 0.2]);
        let changed = |pixel: [u8; 3], turn, saturation, value| {
            let mut pixel = pixel;
            distort(&mut pixel, turn, saturation, value);
            pixel
        };
        // A third of a turn takes red to green, two thirds to blue; half of the saturation brings red half way to white.
        assert_eq!(changed([200, 0, 0], 1.0 / 3.0, 1.0, 1.0), [0, 200, 0]);
        assert_eq!(changed([200, 0, 0], -1.0 / 3.0, 1.0, 1.0), [0, 0, 200]);
        assert_eq!(changed([200, 0, 0], 0.0, 0.5, 1.0), [200, 100, 100]);
        assert_eq!(changed([100, 60, 20], 0.0, 1.0, 1.5), [150, 90, 30]);
        assert_eq!(changed([200, 100, 50], 0.0, 1.0, 2.0), [255, 200, 100]);
        // Grey has no hue to turn and no saturation to raise.
        assert_eq!(changed([128; 3], 0.3, 1.5, 1.0), [128; 3]);
    }

    proptest! {
        #[test]
        fn no_change_changes_nothing(pixel: [u8; 3]) {
            let mut same = pixel;
            distort(&mut same, 0.0, 1.0, 1.0);
            prop_assert_eq!(same, pixel);
        }
    }
}
