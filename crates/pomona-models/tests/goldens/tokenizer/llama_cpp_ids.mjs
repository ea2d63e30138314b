// Ids that llama.cpp gives each line of a JSON list, special tokens in the text parsed, nothing added at the ends.
//
//     npm install node-llama-cpp@3.22.1
//     node llama_cpp_ids.mjs MODEL.gguf lines.json smollm2.ids.json
import fs from "node:fs";
import {getLlama} from "node-llama-cpp";

const [model, lines, output] = process.argv.slice(2);
const llama = await getLlama({gpu: false, logLevel: "error"});
const loaded = await llama.loadModel({modelPath: model, vocabOnly: true});
const ids = JSON.parse(fs.readFileSync(lines, "utf8")).map((line) => Array.from(loaded.tokenize(line, true)));
fs.writeFileSync(output, "[\n" + ids.map((line) => JSON.stringify(line)).join(",\n") + "\n]\n");
process.exit(0);
