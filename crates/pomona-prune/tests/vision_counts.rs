//! Published networks have their published sizes, to the unit.
#![allow(clippy::unwrap_used, reason = "tests")]

use pomona_cost::{CostOptions, CostReport, cost, default_bindings};
use pomona_models::open;
use serde_json::{Value, json};

fn report(config: &Value) -> CostReport {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let model = open(&path).unwrap();
    let graph = model.graph().unwrap();
    cost(&graph.bind(&default_bindings(graph)).unwrap(), &CostOptions::default()).unwrap()
}

/// Architecture, parameters, multiply-accumulates with and without the products of attention: counted by hooks on timm's and
/// torchvision's models (`pomona-task/tests/vision/make_goldens.py --counts`).
const COUNTED: &[(&str, u64, u64, u64)] = &[
    ("resnet18", 11_689_512, 1_814_073_344, 1_814_073_344),
    ("resnet34", 21_797_672, 3_663_761_408, 3_663_761_408),
    ("resnet50", 25_557_032, 4_089_184_256, 4_089_184_256),
    ("resnet101", 44_549_160, 7_801_405_440, 7_801_405_440),
    ("resnet152", 60_192_808, 11_513_626_624, 11_513_626_624),
    ("mobilenetv1_100", 4_231_976, 568_740_352, 568_740_352),
    ("mobilenetv1_100h", 5_282_600, 620_120_576, 620_120_576),
    ("mobilenetv1_125", 6_270_840, 879_516_800, 879_516_800),
    ("mobilenetv2_035", 1_677_128, 59_285_808, 59_285_808),
    ("mobilenetv2_050", 1_968_680, 97_131_840, 97_131_840),
    ("mobilenetv2_075", 2_636_424, 209_069_792, 209_069_792),
    ("mobilenetv2_100", 3_504_872, 300_774_272, 300_774_272),
    ("mobilenetv2_110d", 4_516_520, 430_516_080, 430_516_080),
    ("mobilenetv2_120d", 5_831_144, 668_857_568, 668_857_568),
    ("mobilenetv2_140", 6_108_776, 582_195_824, 582_195_824),
    ("efficientnet_lite0", 4_652_008, 385_187_552, 385_187_552),
    ("efficientnet_lite1", 5_416_680, 600_185_232, 600_185_232),
    ("efficientnet_lite2", 6_092_072, 859_736_272, 859_736_272),
    ("efficientnet_lite3", 8_197_096, 1_607_554_544, 1_607_554_544),
    ("efficientnet_lite4", 13_006_568, 3_943_564_112, 3_943_564_112),
    ("vit_tiny_patch16_224", 5_717_416, 1_253_683_200, 1_074_851_328),
    ("vit_small_patch32_224", 22_878_952, 1_142_909_952, 1_119_869_952),
    ("vit_base_patch16_224", 86_567_656, 17_563_828_224, 16_848_500_736),
    ("vit_base_patch8_224", 86_576_872, 78_148_337_664, 66_790_078_464),
    ("vit_large_patch16_384", 304_715_752, 191_066_300_416, 174_702_174_208),
    ("deit_tiny_patch16_224", 5_717_416, 1_253_683_200, 1_074_851_328),
    ("deit_small_patch16_224", 22_050_664, 4_598_882_304, 4_241_218_560),
    ("deit_base_patch16_224", 86_567_656, 17_563_828_224, 16_848_500_736),
    ("deit_base_patch16_384", 86_859_496, 55_484_350_464, 49_347_803_136),
    ("deit_tiny_distilled_patch16_224", 5_910_800, 1_261_003_776, 1_080_351_744),
    ("deit_base_distilled_patch16_224", 87_338_192, 17_656_811_520, 16_934_203_392),
    ("mobilenet_v2", 3_504_872, 300_774_272, 300_774_272),
    ("resnet20", 269_722, 40_551_040, 40_551_040),
    ("resnet32", 464_154, 68_862_592, 68_862_592),
    ("resnet44", 658_586, 97_174_144, 97_174_144),
    ("resnet56", 853_018, 125_485_696, 125_485_696),
    ("resnet110", 1_727_962, 252_887_680, 252_887_680),
    ("resnet1202", 19_421_274, 2_829_238_912, 2_829_238_912),
];

#[test]
fn published_networks() {
    for (name, parameters, full, thop) in COUNTED {
        let report = report(&json!({"architecture": name}));
        assert_eq!(report.parameters, *parameters, "{name}");
        assert_eq!((report.macs.full, report.macs.thop), (*full, *thop), "{name}");
        assert!(report.uncounted.is_empty(), "{name}: {:?}", report.uncounted);
    }
}

#[test]
fn published_transformers() {
    let labels = json!({"id2label": (0..1000).map(|i| (i.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>()});
    let encoder = |kind: &str, class: &str, width: usize, heads: usize, more: &Value| {
        let mut config = json!({"model_type": kind, "architectures": [class], "hidden_size": width,
            "num_attention_heads": heads, "intermediate_size": 4 * width});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let classify = "ViTForImageClassification";
    let none = json!({});
    let table = [
        (encoder("vit", classify, 768, 12, &labels), 86_567_656_u64),
        // With its pooler instead of the classifier.
        (encoder("vit", "ViTModel", 768, 12, &none), 86_389_248),
        (encoder("deit", "DeiTForImageClassificationWithTeacher", 192, 3, &labels), 5_910_800),
        (encoder("deit", "DeiTForImageClassificationWithTeacher", 768, 12, &labels), 87_338_192),
        (encoder("bert", "BertModel", 768, 12, &none), 109_482_240),
        (encoder("bert", "BertForMaskedLM", 768, 12, &none), 109_514_298),
    ];
    for (config, parameters) in table {
        assert_eq!(report(&config).parameters, parameters, "{config}");
    }
    // 12 layers of 4 projections and 2 feed-forward products over 128 tokens, the products of attention, and the pooler.
    let report = report(&encoder("bert", "BertModel", 768, 12, &none));
    let thop = 12 * 128 * (4 * 768 * 768 + 8 * 768 * 768) + 768 * 768;
    assert_eq!(report.macs.thop, thop);
    assert_eq!(report.macs.full, thop + 12 * 2 * 128 * 128 * 768);
}
