"""Writes chat.json: chat templates of many styles, rendered by transformers (its apply_chat_template's own renderer).

    python chat.py > chat.json          with transformers 5 and jinja2 3.1.6
"""

import json

from transformers.utils.chat_template_utils import render_jinja_template

CHATML = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TURNS = """{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] | trim -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set system = none -%}
    {%- set rest = messages -%}
{%- endif -%}
{{ bos_token }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/...') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + (('<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n') if loop.first and system else '') + message.content.strip() + ' [/INST]' }}
    {%- elif message.role == 'assistant' %}
        {{- ' ' ~ message.content | trim ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""
HEADERS = """{% set ns = namespace(count=0, last=false) %}
{% for message in messages %}
    {% if message['role'] is defined and message.content is string %}
        {% set ns.count = ns.count + 1 %}
        {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}
        {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
        {{ content }}
    {% endif %}
{% endfor %}
{{ ns.count }}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}
"""
TOOLS = """{%- if tools %}
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{{ tool | tojson(indent=2) }}
{{ tool | tojson(sort_keys=true, ensure_ascii=true) }}
{{ tool | tojson(separators=(',', ':')) }}
{%- for name, value in tool.function.parameters.properties.items() %}

{{ name }}={{ value.type | upper }}{{ "," if not loop.last }}
{%- endfor %}
{%- endfor %}
{%- endif %}
{% for message in messages %}{{ message | tojson }};{% endfor %}"""
PYTHON = """{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}
{{ m.content.split('</think>')[-1].lstrip('\\n') }}|{{ m.content.upper() }}|{{ m.content.startswith('T') }}|{{ m.content[:3] }}|{{ m.content | length }}
{%- if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{{ [1, 2.5, 'a\\'b', true, none] }} {{ {'k': [], 'é': 'x\n'} }} {{ 1e20 }} {{ 0.1 + 0.2 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 5 }} {{ 'x' * 3 }} {{ ('a', 1) }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | length }} {{ messages | map(attribute='role') | join(', ') }}
{{ undefined_thing }}|{{ undefined_thing | default('d') }}|{{ undefined_thing is defined }}|{{ none is none }}|{{ true }}|{{ 3 is number }}|{{ messages is iterable }}
{{ messages[-1]['content'] | replace('a', 'A') | capitalize }} {{ range(3) | list }} {{ "%s-%d" | format('a', 3) }} {{ messages[::-1][0].role }}
"""
MACRO = """{%- macro turn(role, text='', close=true) -%}
<{{ role }}>{{ text }}{% if close %}</{{ role }}>{% endif %}
{%- endmacro -%}
{%- for m in messages -%}
{{ turn(m['role'], m['content']) }}
{% generation %}
  [{{ m.get('name', 'nobody') }}]
{%- endgeneration -%}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}<think>

</think>{% endif %}
{%+ if true %}kept{% endif +%}

  {#- a comment -#}
{{ strftime_now('') }}end
"""
CONVERSATIONS = [
    [{"role": "user", "content": "Hello, world"}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "2 + 2? 😀 <b>&'\""}, {"role": "assistant", "content": "\nFour é\n"}, {"role": "user", "content": "Thanks a\tlot"}],
    [{"role": "user", "content": "Think"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nDone"}, {"role": "tool", "content": "{\"a\": 1}"}, {"role": "user", "content": ""}],
    [{"role": "assistant", "content": "first"}, {"role": "assistant", "content": "again"}],
]
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Wetter für <Ort> & Zeit", "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "default": 1.0}}, "required": ["place"], "empty": {}, "none": None, "list": []}}}
VARIABLES = [{}, {"tools": [TOOL], "enable_thinking": False}]

cases = []
for name, template in [("chatml", CHATML), ("turns", TURNS), ("headers", HEADERS), ("tools", TOOLS), ("python", PYTHON), ("macro", MACRO)]:
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            variables = VARIABLES[prompt]
            try:
                rendered = render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>", **variables)[0][0]
            except Exception as error:  # a refusal is a result too
                rendered = None
                assert "roles must alternate" in str(error), (name, error)
            cases.append({"name": name, "template": template, "messages": messages, "add_generation_prompt": prompt, "variables": variables, "rendered": rendered})
print("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]")
