// Runs a GGUF in llama.cpp through node-llama-cpp: greedy continuations of prompts given as token ids, speed, and
// on demand the ids of lines of text.
//
// Usage: node llama_cpp_check.mjs --modules DIR --model FILE.gguf [--prompts FILE.json] [--new 64] [--threads 2]
//                                 [--kv F32|F16] [--speed 3] [--tokenize LINES.json]
// DIR holds node_modules with node-llama-cpp and @node-llama-cpp/linux-x64 3.22.1.
// --prompts: {"prompts": [{"ids": [..]}]}. Ids go in verbatim: no BOS, no chat wrapper; greedy, no penalties, and an
// end token does not stop the generation. --speed N: medians of N prefills of 512 tokens (--speed-prompt) and N runs of
// 64 new tokens after 16 (--speed-new); the first of each only warms up.
// --tokenize: a JSON list of strings; special tokens in the text are recognised.
// Prints one JSON document on stdout.
import fs from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";
import {parseArgs} from "node:util";

const {values: args} = parseArgs({
    options: {
        modules: {type: "string"},
        model: {type: "string"},
        prompts: {type: "string"},
        new: {type: "string", default: "64"},
        threads: {type: "string", default: "2"},
        kv: {type: "string", default: "F32"},
        speed: {type: "string", default: "0"},
        "speed-prompt": {type: "string", default: "512"},
        "speed-new": {type: "string", default: "64"},
        tokenize: {type: "string"}
    }
});
if (!args.modules || !args.model) {
    console.error("usage: llama_cpp_check.mjs --modules DIR --model FILE.gguf [--prompts FILE.json] ...");
    process.exit(2);
}
const prefillTokens = Number(args["speed-prompt"]);
const speedTokens = Number(args["speed-new"]);
const newTokens = Number(args.new);
const threads = Number(args.threads);
const entry = path.resolve(args.modules, "node_modules/node-llama-cpp/dist/index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry).href);

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

async function continuation(sequence, ids, count, onFirst = () => {}) {
    const generated = [];
    for await (const token of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
        if (generated.push(token) === 1) onFirst();
        if (generated.length === count) break;
    }
    return generated;
}

async function measureSpeed(sequence, vocabulary, runs) {
    const ids = Array.from({length: prefillTokens}, (_, i) => (i * 7919 + 1000) % vocabulary);
    const prefill = [];
    const decode = [];
    for (let run = 0; run <= runs; run++) {
        await sequence.clearHistory();
        let start = process.hrtime.bigint();
        await sequence.evaluateWithoutGeneratingNewTokens(ids);
        prefill.push(prefillTokens / seconds(start));
        await sequence.clearHistory();
        const generated = await continuation(sequence, ids.slice(0, 16), speedTokens + 1, () => { start = process.hrtime.bigint(); });
        decode.push((generated.length - 1) / seconds(start));
    }
    return {prefill_tokens_per_s: median(prefill.slice(1)), decode_tokens_per_s: median(decode.slice(1))};
}

// One thread pool of its own: the number of threads is a hint otherwise.
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: threads});
const model = await llama.loadModel({modelPath: path.resolve(args.model), gpuLayers: 0});
const info = model.fileInfo;
const result = {model: args.model, threads, kv: args.kv, tensors: info.tensorCount ?? info.fullTensorInfo?.length};

if (args.tokenize) {
    const lines = JSON.parse(fs.readFileSync(args.tokenize, "utf8"));
    result.lines = lines.map((line) => Array.from(model.tokenize(line, true)));
}
if (args.prompts || Number(args.speed) > 0) {
    const context = await model.createContext({
        contextSize: Math.max(1024, prefillTokens + speedTokens + 16),
        batchSize: 512,
        threads: {ideal: threads, min: threads},
        flashAttention: args.kv === "F16" ? "auto" : false,
        experimentalKvCacheKeyType: args.kv,
        experimentalKvCacheValueType: args.kv
    });
    const sequence = context.getSequence();
    if (args.prompts) {
        const {prompts} = JSON.parse(fs.readFileSync(args.prompts, "utf8"));
        result.prompts = [];
        for (const {ids} of prompts) {
            await sequence.clearHistory();
            result.prompts.push({ids, generated: await continuation(sequence, ids, newTokens)});
        }
    }
    if (Number(args.speed) > 0)
        result.speed = await measureSpeed(sequence, model.fileInsights.vocabularySize ?? 32000, Number(args.speed));
    await context.dispose();
}
process.stdout.write(JSON.stringify(result) + "\n");
await model.dispose();
process.exit(0);
