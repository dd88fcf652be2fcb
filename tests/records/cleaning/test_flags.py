"""Signs of bad rows: each is seen where it is, and not in what is like it."""

import time

import pytest

from weitiao.records.cleaning.flags import ABOUT_ANSWERS
from weitiao.records.cleaning.language import main_language

LONG = "This is a long answer that says many things. " * 6
SEEN = [
    ("language_mix", "列出四张披头士专辑。",
     "Here is a list of four albums by The Beatles that I like best of all."),
    ("language_mix", "Who wrote it and when was it written?",
     "这本书是一位不知名的作者在很久以前写的，没人知道。"),
    ("language_mix", "概括他的生平。",
     "爱迪生 was an American inventor and businessman, born in the town of Milan, Ohio，"
     "他一生有很多发明，为世界带来了极大的贡献和影响，人们至今怀念他。"),
    ("repeats_prompt", "高血压患者能吃党参吗？", "高血压患者能吃党参吗？可以吃。"),
    ("repeats_prompt", "What is a prime number?", "Question: What is a prime number? It is one."),
    ("refusal", "写一个故事", "作为一个人工智能语言模型，我无法写故事。"),
    ("refusal", "订票", "很抱歉，我目前无法帮助您预订机票。"),
    ("refusal", "天气", "我无法提供实时天气。"),
    ("refusal", "Weather?", "I'm sorry, but I can't help with that."),
    ("refusal", "Opinion?", "As an AI language model, I don't have personal opinions."),
    ("refusal", "Do it", "I am unable to access the internet."),
    ("unfinished", "乐器", "爵士乐中，不同的音色之间的结合是十分重要的，萨克斯、小号、"),
    ("unfinished", "建议", "平时要注意饮食清淡，多喝水，并且"),
    ("unfinished", "Why?", "It is important to keep in mind the meaning of"),
    ("unfinished", "Why?", LONG + "In the end, the model may need to be re"),
    ("unbalanced_quotes", "问", "他说：“今天天气很好。然后走了。"),
    ("unbalanced_quotes", "问", "见《红楼梦，作者曹雪芹。"),
    ("unbalanced_quotes", "问", "元素：氢（H）、氦（He"),
    ("unbalanced_quotes", "Q", "It is (as they say a fact."),
    ("broken_json", "json", '{"a": 1, "b": [1, 2}'),
    ("broken_json", "json", '[{"a": 1}, {"a"'),
    ("broken_json", "json", 'Here:\n```json\n{"a": 1,}\n```'),
]  # fmt: skip
UNSEEN = [
    ("language_mix", "翻译成英文：今天天气很好。",
     "The weather is very nice today, and I would like to go for a walk."),
    ("language_mix", "写一个Python函数", "```python\ndef f(x):\n    return x\n```"),
    ("language_mix", "介绍一下你自己", "我是助手。My name is Bot."),
    ("language_mix", "Translate to Chinese: good morning to all of you",
     "大家早上好，祝你们今天过得愉快，身体健康。"),
    ("language_mix", "请把下面这段话改写得更加正式一些，让它读起来很好：good morning to you all",
     "I would like to wish every one of you a very good morning."),
    ("language_mix", "列出化学元素",
     "1. 氢（Hydrogen, H）\n2. 氦（Helium, He）\n3. 锂（Lithium, Li）"),
    ("repeats_prompt", "你好", "你好"),
    ("repeats_prompt", "把“天气很好”改成问句", "天气好吗？"),
    ("refusal", "你是谁", "我是由某公司开发的人工智能助手，可以帮助您。"),
    ("refusal", "Who are you?", "I am an AI assistant developed by someone. How can I help?"),
    ("refusal", "建议", "孕妇不能吃生冷食物，否则无法保证健康。"),
    ("refusal", "Advice", "You cannot provide too much help to a friend."),
    ("unfinished", "诗", "床前明月光，疑是地上霜"),
    ("unfinished", "名字", "李白"),
    ("unfinished", "Capital?", "Paris"),
    ("unfinished", "Post", LONG + "Get yourself a puppy and experience love. #PuppyLove"),
    ("unfinished", "List", LONG + "\n- one\n- two"),
    ("unfinished", "code", "```c\nint x = 1,\n```"),
    ("unbalanced_quotes", "问", "1）先洗手；2）再吃饭。a) b) 笑:) 哭:("),
    ("unbalanced_quotes", "问", "“外面‘里面’”（a（b）c）《书》(混用）"),
    ("unbalanced_quotes", "Q", "She is 5'6” tall."),
    ("unbalanced_quotes", "Q", "```\nprint('(')\n```"),
    ("broken_json", "json", '{"a": 1, "b": [1, 2]}'),
    ("broken_json", "json", '{"a": 1}\n这是说明'),
    ("broken_json", "q", "[1] Smith, 2001"),
    ("broken_json", "q", "{{name}}"),
    ("broken_json", "q", "[电话号码]"),
    ("broken_json", "json", '```json\n[{"a": null}]\n```'),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "question", "answer"), SEEN)
def test_seen(flag: str, question: str, answer: str) -> None:
    seen = {name: look(question, answer) for name, look in ABOUT_ANSWERS.items()}
    assert seen[flag]
    assert len(seen[flag]) <= 120


@pytest.mark.parametrize(("flag", "question", "answer"), UNSEEN)
def test_not_seen(flag: str, question: str, answer: str) -> None:
    assert ABOUT_ANSWERS[flag](question, answer) is None


@pytest.mark.parametrize("flag", ABOUT_ANSWERS)
@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "\n",
        "a",
        "word ",
        "“",
        "(",
        '{"a":',
        "[",
        "中",
        "，",
        "```json\n",
        "a-",
        "1)",
        "中 the ",
    ],
)
def test_time_grows_with_the_answer_and_no_faster(flag: str, unit: str) -> None:
    answer = unit * (60_000 // len(unit))
    started = time.process_time()
    ABOUT_ANSWERS[flag]("列出四张专辑", answer)
    ABOUT_ANSWERS[flag](answer, answer)
    ABOUT_ANSWERS[flag]("问题是什么", "中" * 60 + " a" * 13 + "。" + answer + "，")
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("高血压患者能吃党参吗", "zh"),
        ("使用Python编写程序", "zh"),
        ("曾隨風水化凡鱗", "zh"),
        ("What is a prime number?", "en"),
        ("printf", "en"),
        ("le chat mange dans la cuisine avec son ami le chien", "other"),
        ("これは日本語の文章です", "other"),
        ("한국어 문장입니다", "other"),
        ("Привет, как дела", "other"),
        ("ภาษาไทย", "other"),
        ("12345", "other"),
    ],
)
def test_main_language(text: str, language: str) -> None:
    assert main_language(text) == language
