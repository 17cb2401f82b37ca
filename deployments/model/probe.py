"""Texts on which engines are compared, for every model.

Written for this. Reviews, questions, news and nonsense, in the lengths that a service meets: what
counts is that the activations look natural, not what the texts say.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from deployments.model.load import load_parts
from deployments.pipeline.types import Encoded, TextInput
from deployments.settings import ModelSettings

N_TEXTS = 96
# How many sentences each text is made of, over and over: short ones mostly, one in 24 very long.
_SENTENCES_PER_TEXT = (1, 2, 3, 1, 2, 4, 1, 2, 3, 1, 2, 6, 1, 2, 3, 1, 2, 5, 1, 2, 3, 1, 2, 15)


def probe_texts() -> list[str]:
    """`N_TEXTS` different texts; each 24 in a row have the same mix of lengths."""
    return _texts(_SENTENCES)


def probe_batch(model: ModelSettings) -> Encoded:
    """The probe texts as the model's own tokenizer sees them, cut to the length it may read.

    Raises:
        ModelNotFound, ValueError: as `load_parts`.
    """
    return _encoded(model, probe_texts())


def _texts(sentences: Sequence[str]) -> list[str]:
    counts = islice(cycle(_SENTENCES_PER_TEXT), N_TEXTS)
    return [
        " ".join(sentences[(i + k) % len(sentences)] for k in range(n))
        for i, n in enumerate(counts)
    ]


def _encoded(model: ModelSettings, texts: Sequence[str]) -> Encoded:
    return load_parts(model).encoder().encode([TextInput(text) for text in texts]).batch


_SENTENCES = (
    "很好",
    "这个保温杯比想象中结实，早上灌的热水到晚上还是烫的，出差带着很放心。",
    "太差了，用了两天就坏，客服让我自己想办法。",
    "一般",
    "房间不大，但是床单很干净，前台的姑娘还帮我们换了一间安静的。",
    "快递慢得离谱，等了半个月，打开一看颜色还发错了！",
    "书的内容很扎实，例子讲得清楚，就是纸张有点薄，翻起来沙沙响。",
    "说明书全是英文，看不懂，装了一下午也没装上。",
    "性价比高，给爸妈也买了一台，他们都说声音够大、字也够大。",
    "不推荐。",
    "酒店离地铁站要走二十分钟，网上写的是五分钟，感觉被骗了。",
    "第三次回购了，味道一直没变，孩子特别爱吃。",
    "屏幕在太阳底下几乎看不见，电池半天就没电，后悔没买贵一点的那款。",
    "The zip broke the first time I used it, and nobody answers the phone.",
    "物流很快，昨天下单今天就到了，包装也很用心，里面还垫了两层泡沫。",
    "空调一开就嗡嗡响，整夜没睡好，早餐也只有白粥和咸菜。",
    "Lovely little shop, friendly people, and the tea was still hot when it came.",
    "还行吧，没有图片上那么亮，不过这个价钱也就不挑了。",
    "昨天下午市里开通了第六条地铁线，全长三十一公里，设二十二座车站。",
    "充电头有点烫手，不知道正不正常，先用着看看。",
    "衣服洗了一次就缩水，领口也松了，退货还要自己出运费，再也不来了。",
    "请问这款有没有黑色的？袖子是不是偏长？",
    "Ich habe drei Wochen gewartet, und dann fehlte die Hälfte der Schrauben.",
    "老板人很实在，多送了一包，下次还来你家买。",
    "拍照比上一代好很多，夜里也清楚，可惜机身太滑，不戴壳根本拿不住。",
    "差评！！！",
    "电影的前半段有点闷，后半段突然好看起来，结尾我和朋友都哭了。",
    "菜上得快，分量也足，只是那道鱼偏咸，喝了一晚上的水。",
    "C'est exactement ce que je cherchais, merci pour la livraison si rapide.",
    "系统更新以后老是卡住，重启三次才好，希望工程师早点修复。",
    "这家店的面包每天现烤，下午四点去刚好赶上出炉，香得走不动路。",
    "音质浑浊，左边的耳机时有时无，插拔好几次才有声音。",
    "No complaints.",
    "研究人员在高原湖泊中发现一种耐寒的藻类，相关结果已经公布。",
    "质量不错，颜色正，尺码标准，穿着很舒服，朋友都问我在哪里买的。",
    "键盘手感偏硬，打久了手指酸，空格键还会卡住，跟宣传的差太远。",
    "この値段でこの品質なら十分満足です。次もまた買います。",
    "本来想给五星，结果第二天就降价了二十块，问客服也不给补差价。",
    "操作简单，老人一学就会，按键大，待机一个星期没问题。",
    "味道怪怪的，看了一下日期，还有三天就过期了，直接扔了。",
    "Battery life is poor, the screen scratches easily, but the camera is surprisingly good.",
    "司机师傅很有耐心，下雨天还帮忙搬行李，一路开得很稳。",
    "下周三上午九点在二号会议室开会，请各部门带上第三季度的报表。",
    "画面漂亮，剧情却漏洞百出，看到一半就想走。",
    "送给女朋友的生日礼物，她高兴得跳起来，谢谢店家手写的卡片！",
    "El hotel estaba sucio y el desayuno se acabó a las ocho; no volveremos.",
    "吸力大，噪音小，猫毛一遍就干净，尘盒也好拆好洗。",
    "买回来三个月，坏了两次，每次修都要等十天，维修点的态度也很冷淡。",
    "挺好用的",
    "页面上写着包邮，结账的时候又多收了十二块，找谁说理去？",
    "배송이 빠르고 포장도 꼼꼼해서 기분이 좋았어요.",
    "颜色比照片深，布料比想象的薄，不过剪裁还可以，留着在家里穿吧。",
    "老师讲课风趣，作业批改得很细，两个月下来口语进步明显。",
    "门锁的指纹识别十次有五次失败，下雨天干脆没反应，只能用钥匙。",
    "环境安静，停车方便，孩子在院子里玩了一下午都不肯走。",
    "央行宣布下调存款准备金率，市场早盘小幅走高，午后回落。",
    "水果新鲜，个头均匀，压坏的两个店家立刻给退了钱，服务没话说。",
    "Очень тонкий материал, порвалось через неделю, деньги не вернули.",
    "沙发看着大气，坐下去却塌，三千多块买个教训。",
    "666",
    "客服回复很快，问题一次就解决了，给小李点赞。",
    "It does what it says, nothing more and nothing less.",
    "房东说好的热水器一直没修，冬天只能去朋友家洗澡，住了一个月就搬走了。",
    "手机壳很贴合，摸着不滑，摔了两次都没事。",
    "味道还可以，就是甜了点，量也少了点，价格倒是不便宜。",
    "杯子是碎的，照片发过去三天了，没有一个人理我。",
    "字迹清楚，排版舒服，注释也详细，适合刚入门的人慢慢看。",
    "هذا المنتج ممتاز وسأشتريه مرة أخرى.",
    "机器太吵，楼下邻居都来敲门了，功能再多也不敢开。",
    "周末带父母去住了两晚，管家安排得周到，山上的星星特别亮。",
    "???",
    "从下单到收货只用了一天，安装师傅准时上门，还把旧的帮我们拉走了。",
    "Kafamda soru kalmadı, satıcı her şeyi tek tek anlattı.",
    "软件闪退，广告又多，开了会员照样弹窗，卸载了。",
)
