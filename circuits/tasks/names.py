"""First names for the prompt sets; names that either sex bears are left out.

Cut in two by position, as `words` is.
"""

from circuits.tasks.words import entries

MEN = entries("""
    James John Robert Michael William David Richard Joseph Thomas Charles Christopher Daniel
    Matthew Anthony Mark Donald Steven Paul Andrew Joshua Kenneth Kevin Brian George Edward Ronald
    Timothy Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon
    Benjamin Samuel Gregory Frank Alexander Raymond Patrick Jack Dennis Jerry Tyler Aaron Jose
    Henry Adam Douglas Nathan Peter Kyle Walter Harold Jeremy Ethan Carl Keith Roger Gerald Sean
    Arthur Noah Lawrence Joe Bryan Billy Albert Dylan Bruce Gabriel Alan Juan Wayne Ralph Roy
    Eugene Randy Vincent Russell Louis Philip Bobby Johnny Bradley Tom Tim Jim Bob Bill Mike Dave
    Steve Greg Dan Matt Ben Max Luke Simon Ian Neil Oliver Leo Oscar Hugo Felix Victor Martin
    Howard Fred Ted Ray Ron Rick Rob Nick Ken Jeff Doug Don Craig Derek Brad Todd Kurt Karl Hans
    Ivan Pedro Carlos Luis Marco Antonio Diego Mohammed Ahmed Ali Omar Hassan Ibrahim Abraham Isaac
    Elijah Harry Lewis Stuart Graham Trevor Nigel Ernest Leonard Theodore Franklin Herbert
    Frederick Alfred Edwin Harvey Norman Stanley Wesley Wallace Mario Sergio Pablo Miguel Rafael
    Fernando Francisco Javier Manuel Jorge Ricardo Roberto Liam Caleb Evan Seth Duncan Colin Gordon
    Malcolm Phil Tony Vladimir Boris Igor
""")

WOMEN = entries("""
    Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty
    Margaret Sandra Ashley Kimberly Emily Donna Michelle Carol Amanda Dorothy Melissa Deborah
    Stephanie Rebecca Sharon Laura Cynthia Kathleen Amy Angela Shirley Anna Brenda Pamela Emma
    Nicole Helen Samantha Katherine Christine Rachel Carolyn Janet Catherine Maria Heather Diane
    Ruth Julie Olivia Joyce Victoria Lauren Christina Joan Evelyn Judith Megan Andrea Cheryl Hannah
    Jacqueline Martha Gloria Teresa Ann Sara Frances Kathryn Alice Julia Judy Sophia Grace Denise
    Marilyn Danielle Beverly Theresa Diana Natalie Brittany Charlotte Marie Lori Kate Katie Jane
    Lucy Ellen Eva Sally Molly Lily Rose Daisy Ella Mia Zoe Chloe Claire Clara Nora Sophie Stella
    Vera Irene Elena Sofia Monica Veronica Vanessa Tiffany Holly Heidi Wendy Tina Erin Beth Liz
    Jenny Becky Peggy Kathy Cindy Annie Bonnie Bella Leah Esther Naomi Fiona Gina Rosa Carmen Lucia
    Ana Isabel Paula Carla Sylvia Natasha Katrina Helena Louise Lydia Maggie Anne Jill Audrey
    Elaine Eleanor Caroline Serena Amelia Ava Maya Nina Tara Lena
""")
